"""Wrappers of PyTorch around a network: `torch.compile`, data parallel modules, averaged models."""

from typing import cast

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_WITH_MODULE = (DataParallel, DistributedDataParallel, AveragedModel)


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
