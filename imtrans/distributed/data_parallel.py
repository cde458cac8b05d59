"""A training step that several processes take together: what part of the batch each has, and what they add up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imtrans.distributed.process_group import gather_tensors, total, world
from imtrans.errors import ShapeError, TrainingError

# Values in one message: small tensors go together, large ones do not need memory twice.
BUCKET = 2**23


@dataclass
class Share:
    """The part of a step's batch that this process has.

    Args:
        rank: which process this is.
        counts: how many samples of the batch each process has. One that has none trains on a sample of another, so
            that nobody waits for it, and with weight 0.
    """

    rank: int
    counts: Sequence[int]
    updates: int = field(default=0, init=False)

    @property
    def samples(self) -> int:
        """How many samples this process has."""
        return self.counts[self.rank]

    @property
    def weight(self) -> float:
        """What a mean over the samples of this process counts for in the mean over the batch."""
        return self.samples / sum(self.counts)

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over the processes; that of a weighted loss is then that of the batch."""
        self.updates += 1
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            total(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def mean(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means over the batch, from those over the samples of this process: scalars."""
        if not losses:
            return {}
        every = torch.stack([loss.float() for loss in losses.values()]) * self.weight
        return dict(zip(losses, total(every).unbind(), strict=True))

    def gather(self, images: Tensor) -> Tensor:
        """The images of the whole batch, in its order.

        Shape: ``(own samples, c, h, w) -> (samples of the batch, c, h, w)``.

        Raises:
            ShapeError: those of another process differ in shape.
        """
        shapes = world().gather_all(tuple(images.shape[1:]))
        if len(set(shapes)) > 1:
            raise ShapeError(
                f"the processes have images of shapes {sorted(set(shapes))} in one step, and a pool mixes images of "
                "one shape. Give pictures of one size, or use pool_size=0."
            )
        padded = images.new_zeros((max(self.counts), *images.shape[1:]))
        padded[: self.samples] = images[: self.samples]
        parts = gather_tensors(padded)
        return torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])

    def own(self, images: Tensor, without: Tensor) -> Tensor:
        """Of images of the whole batch, those of this process; `without`, if it has no sample."""
        start = sum(self.counts[: self.rank])
        return images[start : start + self.samples] if self.samples else without


_current: Share | None = None


def current_share() -> Share | None:
    """The part of the step that is under way; None between steps, and in a process that is alone."""
    return _current


@contextmanager
def sharing(counts: Sequence[int]) -> Iterator[Share | None]:
    """A step of which each process has as many samples as `counts` says; a plain one, if there is one process.

    Raises:
        TrainingError: at its end, if the step did not take gradients through `imtrans.methods.optim.update`.
    """
    global _current
    if len(counts) == 1:
        yield None
        return
    _current = Share(world().rank, counts)
    try:
        yield _current
        if _current.updates == 0:
            raise TrainingError(
                "the method's step did not update through imtrans.methods.optim.update, so that each process would "
                "train networks of its own. Use it in place of loss.backward() and optimizer.step()."
            )
    finally:
        _current = None


def part(count: int, rank: int, size: int) -> range:
    """Which of `count` samples process `rank` of `size` has: consecutive ones, and as many as others or one less.

    >>> [list(part(5, rank, 2)) for rank in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    return range(-(-count * rank // size), -(-count * (rank + 1) // size))


def counts(samples: int, size: int) -> list[int]:
    """How many of the samples of a batch each of `size` processes has.

    >>> counts(5, 3)
    [2, 2, 1]
    """
    return [len(part(samples, rank, size)) for rank in range(size)]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
