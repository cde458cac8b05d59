"""Process group of a training run. Without torchrun there is one process and every collective is a no-op."""

import atexit
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from imtrans.distributed.torchrun import store_prefix, world_size_from_environment
from imtrans.errors import ArgumentError, TrainingError

T = TypeVar("T")

# The other ranks wait while rank 0 validates or writes. The closed connection of a process that died shows at once.
TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, and the collectives between them.

    All ranks call the same collectives in the same order. Each raises a TrainingError if another process has stopped.

    Args:
        rank: rank of this process. Rank 0 writes files.
        world_size: number of processes.
        cpu_group: `torch.distributed` group for objects and tensors on the CPU.
    """

    rank: int = 0
    world_size: int = 1
    cpu_group: Any = None

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def all_gather_object(self, value: T) -> list[T]:
        """Return the values of all ranks, in rank order."""
        values: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            _collective(dist.all_gather_object, values, value, group=self.cpu_group)
        return values

    def run_on_rank0(self, function: Callable[[], T]) -> T:
        """Call `function` on rank 0, and return its result on all ranks. The others wait up to a day.

        An error of `function` is raised on rank 0; the other ranks raise a TrainingError with its text.
        """
        if self.world_size == 1:
            return function()
        result: list[Any] = [None, None]  # the value, and the text of an error
        failure: Exception | None = None
        if self.is_rank0:
            try:
                result[0] = function()
            except Exception as error:
                failure, result[1] = error, f"{type(error).__name__}: {error}"
        _collective(dist.broadcast_object_list, result, src=0, group=self.cpu_group)
        if result[1] is not None:
            raise failure or TrainingError(f"rank 0 stopped the run: {result[1]}")
        return result[0]

    def all_reduce_max(self, read: Callable[[], int]) -> Callable[[], int]:
        """Start an asynchronous maximum of ``read()`` over the ranks; the function returned waits for it."""
        if self.world_size == 1:
            return read  # the newest value
        value = torch.tensor(read())
        work = _collective(dist.all_reduce, value, dist.ReduceOp.MAX, group=self.cpu_group, async_op=True)

        def result() -> int:
            _collective(work.wait)
            return int(value)

        return result

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum `tensor` over the ranks, in place."""
        if self.world_size > 1:
            _collective(dist.all_reduce, tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which have the same shape, in rank order."""
        if self.world_size == 1:
            return [tensor]
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        _collective(dist.all_gather, parts, tensor)
        return parts

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Copy the tensors of rank 0 to the other ranks, in place."""
        for tensor in tensors if self.world_size > 1 else ():
            _collective(dist.broadcast, tensor.detach(), src=0)

    def check_same(self, **values: object) -> None:
        """Check that all ranks have the same values; an ArgumentError on all ranks names the value and the rank."""
        for name, own in values.items():
            by_rank = self.all_gather_object(own)
            for rank, value in enumerate(by_rank):
                if value != by_rank[0]:
                    raise ArgumentError(
                        f"the processes of this run differ in {name}: {by_rank[0]} on rank 0, {value} on rank {rank}. "
                        "Start all with the same arguments, data and version."
                    )


_joined = ProcessGroup()


def init_process_group(device: torch.device) -> ProcessGroup:
    """Join the other processes of the run, if torchrun has started several; later calls return the same group.

    A CUDA `device` becomes the current one: else PyTorch would open a context on card 0 too. Tensors on CUDA cards go
    over NCCL, others over gloo. An initialized `torch.distributed` is used as it is.

    Raises:
        ArgumentError: torchrun's environment variables are incomplete, or the devices cannot train together.
        TrainingError: the other processes cannot be reached.
    """
    global _joined
    if device.type == "cuda":
        torch.cuda.set_device(device)
    initialized = dist.is_available() and dist.is_initialized()
    size = dist.get_world_size() if initialized else world_size_from_environment()
    if size == 1 or _joined.world_size > 1:
        return _joined
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device='{device}' cannot train in {size} processes. Use CUDA cards, or device='cpu'.")
    try:
        if not initialized:
            _initialize(device)
        _joined = ProcessGroup(dist.get_rank(), size, dist.new_group(backend="gloo", timeout=TIMEOUT))
        if initialized:
            _check_cards(_joined.all_gather_object(_card(device)))
    except ArgumentError:
        raise
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the {size} processes of this run cannot reach one another: {str(error).splitlines()[0]} Check "
            "MASTER_ADDR and MASTER_PORT, and that each process was started."
        ) from error
    return _joined


def _initialize(device: torch.device) -> None:
    torch_distributed: Any = dist  # its types lack these two names
    store, rank, size = next(torch_distributed.rendezvous("env://"))
    if prefix := store_prefix():
        store = torch_distributed.PrefixStore(prefix, store)
    store.set(f"card of rank {rank}", _card(device))
    _check_cards([store.get(f"card of rank {each}").decode() for each in range(size)])
    backend, card = ("cpu:gloo,cuda:nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, device_id=card)
    atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())


def _card(device: torch.device) -> str:
    """Return the UUID of a CUDA card, and its name; of another device an empty text."""
    if device.type != "cuda":
        return ""
    # The UUID, because CUDA_VISIBLE_DEVICES may give two cards one number, and one card two.
    return f"{torch.cuda.get_device_properties(device).uuid} {device} of {socket.gethostname()}"


def _check_cards(cards: Sequence[str]) -> None:
    """Raise if two processes have the same card. NCCL fails later, with an unclear message."""
    uuids = [card.partition(" ")[0] for card in cards]
    shared = next((i for i, uuid in enumerate(uuids) if uuid and uuids.count(uuid) > 1), None)
    if shared is not None:
        raise ArgumentError(
            f"{uuids.count(uuids[shared])} processes were given {cards[shared].partition(' ')[2]}. Use device='cuda', "
            "which gives each process its own card, and start no more processes than there are cards."
        )


def rank_seed(seed: int, rank: int) -> int:
    """Return the seed of the random numbers that one rank draws alone, for dropout for example; `seed` on rank 0.

    >>> rank_seed(3, 0), rank_seed(3, 1) == rank_seed(3, 2)
    (3, False)
    """
    return seed if rank == 0 else int(np.random.SeedSequence((seed, rank)).generate_state(1)[0])


def _collective(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a collective; convert its RuntimeError into a TrainingError."""
    try:
        return function(*arguments, **options)
    except RuntimeError as error:
        raise TrainingError(
            f"another process of this run has stopped or does not answer ({str(error).splitlines()[0]}). Its own "
            "output says why; resume from the newest checkpoint."
        ) from error
