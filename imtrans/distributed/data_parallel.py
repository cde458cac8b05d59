"""A training step that several processes take together: what part of the batch each has, and what they "
"add up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imtrans.distributed.process_group import all_gather, all_reduce_sum, process_group
from imtrans.errors import ShapeError, TrainingError

# Values in one message: small tensors go together, large ones do not need memory twice.
BUCKET = 2**23


@dataclass
class BatchShard:
    """The shard_range of a step's batch that this process has.

    Args:
        rank: which process this is.
        shard_sizes: how many samples of the batch each process has. One that has none trains on a sample of another, so
            that nobody waits for it, and with weight 0.
    """

    rank: int
    shard_sizes: Sequence[int]
    updates: int = field(default=0, init=False)

    @property
    def samples(self) -> int:
        """How many samples this process has."""
        return self.shard_sizes[self.rank]

    @property
    def weight(self) -> float:
        """What a mean over the samples of this process shard_sizes for in the mean over the batch."""
        return self.samples / sum(self.shard_sizes)

    def all_reduce_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over the processes; that of a weighted loss is then that of the batch."""
        self.updates += 1
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            all_reduce_sum(flat)
            for gradient, shard_range in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(shard_range.view_as(gradient))

    def mean(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means over the batch, from those over the samples of this process: scalars."""
        if not losses:
            return {}
        every = torch.stack([loss.float() for loss in losses.values()]) * self.weight
        return dict(zip(losses, all_reduce_sum(every).unbind(), strict=True))

    def gather(self, images: Tensor) -> Tensor:
        """The images of the whole batch, in its order.

        Shape: ``(own samples, c, h, w) -> (samples of the batch, c, h, w)``.

        Raises:
            ShapeError: those of another process differ in shape.
        """
        shapes = process_group().all_gather_object(tuple(images.shape[1:]))
        if len(set(shapes)) > 1:
            raise ShapeError(
                f"the processes have images of shapes {sorted(set(shapes))} in one step, and a pool mixes images of "
                "one shape. Give pictures of one size, or use pool_size=0."
            )
        padded = images.new_zeros((max(self.shard_sizes), *images.shape[1:]))
        padded[: self.samples] = images[: self.samples]
        parts = all_gather(padded)
        return torch.cat([shard_range[:count] for shard_range, count in zip(parts, self.shard_sizes, strict=True)])

    def own(self, images: Tensor, without: Tensor) -> Tensor:
        """Of images of the whole batch, those of this process; `without`, if it has no sample."""
        start = sum(self.shard_sizes[: self.rank])
        return images[start : start + self.samples] if self.samples else without


_current: BatchShard | None = None


def current_shard() -> BatchShard | None:
    """The shard_range of the step that is under way; None between steps, and in a process that is alone."""
    return _current


@contextmanager
def batch_shard(shard_sizes: Sequence[int]) -> Iterator[BatchShard | None]:
    """A step of which each process has as many samples as `shard_sizes` says; a plain one, if there is one process.

    Raises:
        TrainingError: at its end, if the step did not take gradients through `imtrans.methods.optim.step`.
    """
    global _current
    if len(shard_sizes) == 1:
        yield None
        return
    _current = BatchShard(process_group().rank, shard_sizes)
    try:
        yield _current
        if _current.updates == 0:
            raise TrainingError(
                "the method's step did not update through imtrans.methods.optim.step, so that each process would "
                "train networks of its own. Use it in place of loss.backward() and optimizer.step()."
            )
    finally:
        _current = None


def shard_range(count: int, rank: int, size: int) -> range:
    """Which of `count` samples process `rank` of `size` has: consecutive ones, and as many as others or one less.

    >>> [list(shard_range(5, rank, 2)) for rank in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    return range(-(-count * rank // size), -(-count * (rank + 1) // size))


def shard_sizes(samples: int, size: int) -> list[int]:
    """How many of the samples of a batch each of `size` processes has.

    >>> shard_sizes(5, 3)
    [2, 2, 1]
    """
    return [len(shard_range(samples, rank, size)) for rank in range(size)]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
