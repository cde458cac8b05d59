"""Data-parallel training step: this rank's shard of the batch, and the sums over all ranks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import ShapeError, TrainingError

BUCKET = 2**23  # values in one message: small tensors are joined, and large ones are not copied all at once


@dataclass
class BatchShard:
    """Context of one distributed training step: the process group, and this rank's shard of the batch.

    Args:
        group: the processes that share the step.
        shard_sizes: ``shard_sizes[r]`` is the number of samples on rank r. A rank without samples runs the step on a
            sample of another rank, with weight 0, so that it takes part in every collective.
    """

    group: ProcessGroup
    shard_sizes: Sequence[int]
    updates: int = field(default=0, init=False)

    @property
    def samples(self) -> int:
        """Number of samples on this rank."""
        return self.shard_sizes[self.group.rank]

    @property
    def weight(self) -> float:
        """Weight of this rank's mean in the mean over the batch."""
        return self.samples / sum(self.shard_sizes)

    def all_reduce_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Sum each gradient over the ranks, in place. For a loss times `weight`, that is the gradient of the batch."""
        self.updates += 1
        for bucket in _buckets(gradients):
            flat = self.group.all_reduce_sum(torch.cat([gradient.flatten() for gradient in bucket]))
            parts = flat.split([gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])

    def mean(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the means over the batch, from this rank's means: scalars. Call it at the end of a step.

        Raises:
            TrainingError: the step did not update through `imtrans.methods.optim.step`.
        """
        if self.updates == 0:
            raise TrainingError(
                "the method's step did not update through imtrans.methods.optim.step, so that the weights would differ "
                "between the processes. Use it instead of loss.backward() and optimizer.step()."
            )
        if not losses:
            return {}
        weighted = torch.stack([loss.float() for loss in losses.values()]) * self.weight
        return dict(zip(losses, self.group.all_reduce_sum(weighted).unbind(), strict=True))

    def check_images(self, images: Tensor) -> None:
        """Raise a ShapeError if ranks have images of other shapes ``(b, c, h, w)``. The host waits for all ranks."""
        shapes = self.group.all_gather_object(tuple(images.shape[1:]))
        if len(set(shapes)) > 1:
            raise ShapeError(
                f"the processes have images of shapes {sorted(set(shapes))} in one step, and a pool mixes images of "
                "one shape. Give pictures of one size, or use pool_size=0."
            )

    def gather(self, images: Tensor) -> Tensor:
        """Return the images of the whole batch, in order; all ranks have images of one shape, see `check_images`.

        Shape: ``(samples on this rank, c, h, w) -> (samples of the batch, c, h, w)``.
        """
        padded = images.new_zeros((max(self.shard_sizes), *images.shape[1:]))
        padded[: self.samples] = images[: self.samples]
        parts = self.group.all_gather(padded)
        return torch.cat([part[:count] for part, count in zip(parts, self.shard_sizes, strict=True)])

    def local(self, images: Tensor, *, default: Tensor) -> Tensor:
        """Slice this rank's images out of the gathered batch; returns `default` if the rank has no sample."""
        start = sum(self.shard_sizes[: self.group.rank])
        return images[start : start + self.samples] if self.samples else default


# No ContextVar: with gradient checkpointing, a forward runs again in autograd's own threads, which would not see it.
_running: BatchShard | None = None


def current_shard() -> BatchShard | None:
    """Return the context of the running distributed step; None outside of one, and with one process."""
    return _running


@contextmanager
def batch_shard(group: ProcessGroup, shard_sizes: Sequence[int]) -> Iterator[BatchShard | None]:
    """Context manager for one distributed training step; see `BatchShard`. Does nothing with one process."""
    global _running
    if group.world_size == 1:
        yield None
        return
    _running = BatchShard(group, shard_sizes)
    try:
        yield _running
    finally:
        _running = None


def shard_range(count: int, rank: int, world_size: int) -> range:
    """Return the indices of the samples on one rank: consecutive, and the sizes of two ranks differ by at most one.

    >>> [list(shard_range(5, rank, 2)) for rank in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    return range(-(-count * rank // world_size), -(-count * (rank + 1) // world_size))


def shard_sizes(samples: int, world_size: int) -> list[int]:
    """Return the number of samples on each rank.

    >>> shard_sizes(5, 3)
    [2, 2, 1]
    """
    return [len(shard_range(samples, rank, world_size)) for rank in range(world_size)]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
