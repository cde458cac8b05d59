"""Three ways to run a trained generator."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from imtrans.checks import one_of

MODES = ("eval", "batch_stats", "paper")
_Dropouts = nn.modules.dropout._DropoutNd
_Norms = nn.modules.batchnorm._NormBase
_InstanceNorm = nn.modules.instancenorm._InstanceNorm


@contextmanager
def running_as(network: nn.Module, mode: str) -> Iterator[nn.Module]:
    """Run `network` in one of three modes inside the block; leave it exactly as it was.

    ``"eval"`` uses running statistics and no dropout; ``"batch_stats"`` the statistics of the images at hand
    and no dropout; ``"paper"`` those statistics and dropout, as in training (Isola et al. 2017, section 3.3).
    Running statistics are not updated in any mode.

    Raises:
        ArgumentError: an unknown mode.

    >>> import torch
    >>> norm = nn.BatchNorm2d(1)
    >>> with torch.no_grad(), running_as(norm, "batch_stats"):
    ...     norm(torch.arange(4.0).reshape(1, 1, 2, 2)).mean().abs().item() < 1e-6
    True
    >>> norm.running_mean, norm.training
    (tensor([0.]), True)
    """
    one_of("running_as", "mode", mode, MODES)
    training = {module: module.training for module in network.modules()}
    tracking = {m: m.track_running_stats for m in training if isinstance(m, _Norms)}
    # An instance norm that has running statistics updates them whenever it uses the images' own.
    running = {
        m: (m.running_mean, m.running_var, m.momentum)
        for m in tracking
        if isinstance(m, _InstanceNorm) and m.running_mean is not None and m.running_var is not None
    }
    network.eval()
    for module in training:
        if isinstance(module, _Norms) and mode != "eval":
            module.training = True
            if module in running:
                mean, var, _ = running[module]
                module.running_mean, module.running_var, module.momentum = mean.clone(), var.clone(), 0.0
            else:
                module.track_running_stats = False
        elif isinstance(module, _Dropouts):
            module.training = mode == "paper"
    try:
        yield network
    finally:
        for module, was in training.items():
            module.training = was
        for norm, tracked in tracking.items():
            norm.track_running_stats = tracked
        for norm, statistics in running.items():
            norm.running_mean, norm.running_var, norm.momentum = statistics
