"""Batch norm over the whole batch of a step that several processes shard."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from imtrans.distributed.data_parallel import BatchShard, current_shard
from imtrans.distributed.process_group import all_gather, all_reduce_sum
from imtrans.errors import ArgumentError

_BatchNorm = nn.modules.batchnorm._BatchNorm


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Let each batch norm in `network` take its statistics from the whole batch, in steps that processes shard.

    Elsewhere, in validation for example, it stays what it was, so that one process can run it alone. It is changed
    in place: parameters, keys of the state dict and hooks remain. On one process it computes what it did.

    `torch.nn.SyncBatchNorm` is not used: it refuses the CPU, counts a sample that only stands in, and waits for
    the others also where one process runs alone.

    Raises:
        ArgumentError: a batch norm of another class than `torch.nn.BatchNorm1d`, 2d and 3d.

    >>> norm = nn.BatchNorm2d(3)
    >>> convert_sync_batchnorm(norm)
    >>> type(norm).__name__
    'SyncBatchNorm2d'
    """
    for name, module in network.named_modules():
        if type(module) in _SYNCHRONISED:
            module.__class__ = _SYNCHRONISED[type(module)]
        elif isinstance(module, _BatchNorm) and not isinstance(module, _Synchronised):
            raise ArgumentError(
                f"{name or 'the network'} is a {type(module).__name__}; the batch norms that several processes can "
                "shard are torch.nn.BatchNorm1d, 2d and 3d. Use one of these, or norm='instance'."
            )


class _Synchronised(_BatchNorm):
    """A batch norm over the samples of all processes, within a step that they shard."""

    def forward(self, x: Tensor) -> Tensor:
        shard = current_shard()
        from_batch = self.training or (self.running_mean is None and self.running_var is None)
        if shard is None or not from_batch:
            return super().forward(x)
        cast(Any, self)._check_input_dim(x)
        normed, mean, var, count = cast(Any, _Normalise).apply(x, self.eps, shard)
        if self.training and self.track_running_stats:
            self._remember(mean, var, count)
        if self.affine:
            shape = (1, -1, *[1] * (x.ndim - 2))
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        shard = 1 / self.num_batches_tracked.float() if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1).clamp_min(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), shard)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), shard)


class SyncBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, and over the samples of all processes within a step that they shard."""


class SyncBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, and over the samples of all processes within a step that they shard."""


class SyncBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, and over the samples of all processes within a step that they shard."""


_SYNCHRONISED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncBatchNorm1d,
    nn.BatchNorm2d: SyncBatchNorm2d,
    nn.BatchNorm3d: SyncBatchNorm3d,
}


class _Normalise(torch.autograd.Function):
    """Subtract the mean, and divide by the deviation, of the whole batch.

    Source: Ioffe & Szegedy 2015; the variances of the parts are combined as in Chan et al. 1979.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, shard: BatchShard) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [0, *range(2, x.ndim)]
        # A sample that only stands in has no part in the statistics, and so nothing flows back to it through them.
        ctx.counted = bool(shard.samples)
        own = x.numel() // x.shape[1] if shard.samples else 0
        var, mean = torch.var_mean(x.float(), axes, correction=0)
        parts = torch.stack(all_gather(torch.cat([mean, var, mean.new_full((1,), own)])))
        means, variances, shard_sizes = parts[:, : len(mean)], parts[:, len(mean) : -1], parts[:, -1:]
        count = shard_sizes.sum()
        mean = (shard_sizes * means).sum(0) / count
        var = (shard_sizes * (variances + (means - mean).square())).sum(0) / count
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return _normed(x, mean, scale), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, mean, scale, count = ctx.saved_tensors
        gradient, normed = gradients[0], _normed(x, mean, scale)
        axes = [0, *range(2, x.ndim)]
        sums = all_reduce_sum(torch.stack([gradient.sum(axes), (gradient * normed).sum(axes)])) / count
        if ctx.counted:
            of_mean, of_scale = (_as_image(each, x) for each in sums)
            gradient = gradient - of_mean - normed * of_scale
        return (_as_image(scale, x) * gradient).to(x.dtype), None, None


def _normed(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return (x.float() - _as_image(mean, x)) * _as_image(scale, x)


def _as_image(channels: Tensor, x: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (x.ndim - 2))
