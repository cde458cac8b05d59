"""Inference modes: running statistics or the input's own in batch and instance norms, with or without dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from imtrans.checks import one_of

MODES = ("eval", "batch_stats", "paper")
DETERMINISTIC = ("eval", "batch_stats")  # without dropout: two runs give the same image, except for noise
_Dropouts = nn.modules.dropout._DropoutNd
_Norms = nn.modules.batchnorm._NormBase  # batch and instance norms
_InstanceNorm = nn.modules.instancenorm._InstanceNorm
_WITH_MODULE = (DataParallel, DistributedDataParallel, AveragedModel)
# Not an attribute of the module: a copy that is made inside `running_as` keeps the changed settings for ever.
_settings_outside: WeakKeyDictionary[nn.Module, dict[str, Any]] = WeakKeyDictionary()


def uses_input_stats(module: nn.Module, *, training: bool | None = None) -> bool:
    """Whether `module` is a norm that takes its statistics from its input, not from running statistics.

    Group norms always do. Batch and instance norms do in training mode, or if they track no running statistics. Layer
    norms do not count: over the channels of one pixel they mix no positions. `training` is the mode to answer for; None
    for the module's current one.

    >>> uses_input_stats(nn.InstanceNorm2d(3).eval()), uses_input_stats(nn.BatchNorm2d(3).eval())
    (True, False)
    """
    if isinstance(module, _Norms):
        return (module.training if training is None else training) or not module.track_running_stats
    return isinstance(module, nn.GroupNorm)


@contextmanager
def running_as(network: nn.Module, mode: str) -> Iterator[nn.Module]:
    """Context manager that runs `network` in one of three modes and restores its state afterwards.

    - ``"eval"``: running statistics, no dropout.
    - ``"batch_stats"``: statistics of the input, no dropout.
    - ``"paper"``: statistics of the input, and dropout, as in training (Isola et al. 2017, section 3.3).

    No mode updates running statistics.

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
    settings: dict[nn.Module, dict[str, Any]] = {
        m: {"track_running_stats": m.track_running_stats, "momentum": m.momentum}
        for m in training
        if isinstance(m, _Norms)
    }
    outermost = {m: found for m, found in settings.items() if m not in _settings_outside}
    _settings_outside.update(outermost)
    running = {}
    network.eval()
    for module in training:
        if isinstance(module, _Norms) and mode != "eval":
            module.training = True
            mean, var = module.running_mean, module.running_var
            if isinstance(module, _InstanceNorm) and mean is not None and var is not None:
                # It updates its running statistics whenever it uses the statistics of its input.
                running[module] = mean, var
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
        for module, attributes in settings.items():
            vars(module).update(attributes)
        for norm, statistics in running.items():
            norm.running_mean, norm.running_var = statistics
        for module in outermost:
            _settings_outside.pop(module, None)  # the garbage collector may have taken it out


def has_dropout(network: nn.Module) -> bool:
    """Whether `network` has dropout, so that its outputs are random in the mode ``"paper"``.

    >>> has_dropout(nn.Sequential(nn.Dropout(0.5))), has_dropout(nn.Sequential(nn.Dropout(0.0)))
    (True, False)
    """
    return any(isinstance(module, _Dropouts) and module.p > 0 for module in network.modules())


def settings_of(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of `module`; inside `running_as`, as they are outside of it.

    >>> norm = nn.BatchNorm2d(1)
    >>> with running_as(norm, "batch_stats"):
    ...     norm.track_running_stats, settings_of(norm)["track_running_stats"]
    (False, True)
    """
    return {**vars(module), **_settings_outside.get(module, {})}


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of PyTorch, or `network` itself.

    The wrappers are the result of `torch.compile`, `DataParallel`, `DistributedDataParallel` and `AveragedModel`.

    >>> conv = nn.Conv2d(1, 1, 1)
    >>> unwrap(nn.DataParallel(conv)) is conv, unwrap(conv) is conv
    (True, True)
    """
    while True:
        if isinstance(network, _WITH_MODULE):
            network = cast(nn.Module, network.module)
        elif type(network).__name__ == "OptimizedModule" and "_orig_mod" in network._modules:
            # By name: the import of its class would load the compiler.
            network = cast(nn.Module, network._modules["_orig_mod"])
        else:
            return network
