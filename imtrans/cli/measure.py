"""Time and memory of one forward pass of a network."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imtrans.errors import ArgumentError
from imtrans.hub.pretrained import Pretrained
from imtrans.modes import running_as

SECONDS, RUNS = 3.0, 10  # the passes are repeated until one of both is reached


@dataclass
class Measurement:
    """What `measure` returns.

    Attributes:
        seconds: time of a pass, the least of several.
        bytes: largest memory in a pass, without the weights and the input.
        shapes: shape of the output of each module that gives one map, in the order of the first calls.
    """

    seconds: float = 0.0
    bytes: int = 0
    shapes: dict[nn.Module, torch.Size] = field(default_factory=dict)


@torch.no_grad()
def measure(network: Pretrained, source: Tensor) -> Measurement:
    """Measure a network in its inference mode on a batch ``(b, in_channels, h, w)`` on its device.

    On CUDA, the memory is the one that PyTorch's allocator gives out. Elsewhere it is the sum of the tensors that exist
    at once, without what operations use inside.

    Raises:
        ShapeError: a size that the network does not take.
        ArgumentError: the memory of the device is too small.
    """
    found = Measurement()

    def record(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found.shapes.setdefault(module, output.shape)

    with running_as(network, network.inference_mode):
        hooks = [module.register_forward_hook(record) for module in network.modules()]
        try:
            found.bytes = _memory(network, source)
        except torch.OutOfMemoryError:
            size = "{}x{}".format(*source.shape[-2:])
            raise ArgumentError(
                f"imtrans info: an image of {size} is too large for the memory of {source.device}. Give a smaller "
                "--size."
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        times: list[float] = []
        while len(times) < RUNS and sum(times) < SECONDS:
            _wait_for(source.device)
            start = time.perf_counter()
            network(source)
            _wait_for(source.device)
            times.append(time.perf_counter() - start)
    found.seconds = min(times)
    return found


def _memory(network: nn.Module, source: Tensor) -> int:
    if source.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(source.device)
        before = torch.cuda.memory_allocated(source.device)
        network(source)
        return torch.cuda.max_memory_allocated(source.device) - before
    with _LiveTensors({*network.parameters(), *network.buffers(), source}) as live:
        network(source)
    return live.peak


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


class _LiveTensors(TorchDispatchMode):
    """Adds up the memory of the tensors that exist after each operation, except for the tensors `before`."""

    def __init__(self, before: set[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._before = {StorageWeakRef(tensor.untyped_storage()) for tensor in before}
        self._sizes: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._sizes[StorageWeakRef(storage)] = storage.nbytes()
        self._sizes = {ref: size for ref, size in self._sizes.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for ref, size in self._sizes.items() if ref not in self._before))
        return result
