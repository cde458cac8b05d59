"""Batch norm with statistics over all ranks of a distributed training step.

`torch.nn.SyncBatchNorm` is not used: it refuses the CPU, counts samples of weight 0, and waits for the other ranks
where one runs alone.
"""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from imtrans.distributed.data_parallel import BatchShard, current_shard
from imtrans.errors import ArgumentError
from imtrans.modes import uses_input_stats

_BatchNorm = nn.modules.batchnorm._BatchNorm
_CONVERSIONS: dict[type[nn.Module], type[nn.Module]] = {}


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Convert each batch norm in `network`, in place, to one with statistics over the batch of all ranks.

    Outside of a distributed step, a converted norm computes what it did before. Parameters, state-dict keys and hooks
    stay.

    Raises:
        ArgumentError: a batch norm of another class than `torch.nn.BatchNorm1d`, 2d and 3d.
    """
    for name, module in network.named_modules():
        if type(module) in _CONVERSIONS:
            module.__class__ = _CONVERSIONS[type(module)]
        elif isinstance(module, _BatchNorm) and not isinstance(module, _SyncBatchNorm):
            raise ArgumentError(
                f"{name or 'the network'} is a {type(module).__name__}; the batch norms that can train in several "
                "processes are torch.nn.BatchNorm1d, 2d and 3d. Use one of these, or norm='instance'."
            )


class _SyncBatchNorm(_BatchNorm):
    computes_as: ClassVar[type[_BatchNorm]]
    """The class that is converted to this one."""

    def __init_subclass__(cls) -> None:
        _CONVERSIONS[cls.computes_as] = cls

    def forward(self, x: Tensor) -> Tensor:
        shard = current_shard()
        if shard is None or not uses_input_stats(self):
            return super().forward(x)
        cast(Any, self)._check_input_dim(x)
        normed, mean, var, count = cast(Any, _Normalise).apply(x, self.eps, shard)
        if self.training and self.track_running_stats:
            self._update_running_stats(mean, var, count)
        if self.affine:
            normed = normed * _as_image(self.weight, x) + _as_image(self.bias, x)
        return normed.to(x.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.float() if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1).clamp_min(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class SyncBatchNorm1d(_SyncBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` with statistics over all ranks in a distributed step."""

    computes_as: ClassVar[type[_BatchNorm]] = nn.BatchNorm1d


class SyncBatchNorm2d(_SyncBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with statistics over all ranks in a distributed step."""

    computes_as: ClassVar[type[_BatchNorm]] = nn.BatchNorm2d


class SyncBatchNorm3d(_SyncBatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` with statistics over all ranks in a distributed step."""

    computes_as: ClassVar[type[_BatchNorm]] = nn.BatchNorm3d


class _Normalise(torch.autograd.Function):
    """Normalise over all ranks (Ioffe & Szegedy 2015). Their variances are combined as in Chan et al. 1979."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, shard: BatchShard) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [0, *range(2, x.ndim)]
        # A sample of weight 0 has no part in the statistics, and no gradient through them.
        ctx.shard = shard
        own = x.numel() // x.shape[1] if shard.samples else 0
        var, mean = torch.var_mean(x.float(), axes, correction=0)
        parts = torch.stack(shard.group.all_gather(torch.cat([mean, var, mean.new_full((1,), own)])))
        means, variances, counts = parts[:, : len(mean)], parts[:, len(mean) : -1], parts[:, -1:]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return _normed(x, mean, scale), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, mean, scale, count = ctx.saved_tensors
        gradient, normed, axes = gradients[0], _normed(x, mean, scale), [0, *range(2, x.ndim)]
        sums = torch.stack([gradient.sum(axes), (gradient * normed).sum(axes)])
        sums = ctx.shard.group.all_reduce_sum(sums) / count
        if ctx.shard.samples:
            of_mean, of_scale = (_as_image(each, x) for each in sums)
            gradient = gradient - of_mean - normed * of_scale
        return (_as_image(scale, x) * gradient).to(x.dtype), None, None


def _normed(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return (x.float() - _as_image(mean, x)) * _as_image(scale, x)


def _as_image(channels: Tensor, x: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (x.ndim - 2))
