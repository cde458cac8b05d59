"""The processes of a run: who is there, and what they tell one another.

A process that torchrun has started is one of several; any other is alone, and then nothing here does anything.
"""

import atexit
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from imtrans.errors import ArgumentError, ImtransError, TrainingError

T = TypeVar("T")

ENVIRONMENT = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Others wait while the first one validates or writes. That one of them died shows at once, by its closed connection.
TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run.

    Args:
        rank: which of them this is; the first one, 0, writes.
        size: how many there are.
        host: the group that tells what is not on a card.
    """

    rank: int = 0
    world_size: int = 1
    host: Any = None

    @property
    def rank_and_size(self) -> tuple[int, int]:
        """Rank and size."""
        return self.rank, self.world_size

    @property
    def is_rank0(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def all_gather_object(self, value: T) -> list[T]:
        """The values of all processes, in their order, in each of them."""
        values: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            with _collective_errors():
                dist.all_gather_object(values, value, group=self.host)
        return values

    def run_on_rank0(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them. The others wait as long as it takes.

        Raises:
            Exception: what `make` raised in the first process; the others raise a TrainingError with its text.
        """
        if self.world_size == 1:
            return make()
        told: list[Any] = [None, None]
        failure: Exception | None = None
        if self.is_rank0:
            try:
                told = [make(), None]
            except Exception as error:
                failure, told = error, [None, f"{type(error).__name__}: {error}"]
        with _collective_errors():
            dist.broadcast_object_list(told, src=0, group=self.host)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise TrainingError(f"the first process stopped the run: {told[1]}")
        return told[0]

    def all_reduce_max(self, read: Callable[[], int]) -> Callable[[], int]:
        """Begin to tell the others a number; what is returned waits for theirs, and gives the all_reduce_max.

        What `read` gives now is told. In one process nothing is, and it is read only when the answer is asked for.
        """
        if self.world_size == 1:
            return read
        told = torch.tensor(read())
        with _collective_errors():
            work = dist.all_reduce(told, dist.ReduceOp.MAX, group=self.host, async_op=True)

        def answer() -> int:
            with _collective_errors():
                work.wait()
            return int(told)

        return answer

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Copy the tensors of the first process to the others."""
        if self.world_size > 1:
            with torch.no_grad(), _collective_errors():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)

    def check_same(self, **facts: object) -> None:
        """Raise unless all processes were given the same.

        Raises:
            ArgumentError: they were not; the text says what differs, and in whom.
        """
        for name, values in {n: self.all_gather_object(fact) for n, fact in facts.items()}.items():
            for rank, value in enumerate(values):
                if value != values[0]:
                    raise ArgumentError(
                        f"the processes of this run differ in {name}: {values[0]} in the first one, {value} in number "
                        f"{rank}. Start all with the same arguments, data and version."
                    )


_group = ProcessGroup()


def process_group() -> ProcessGroup:
    """The processes that `init_process_group` has found; this one alone before it."""
    return _group


def init_process_group(device: torch.device) -> ProcessGroup:
    """Join the other processes of the run, if torchrun has started this one among several.

    Tensors go over NCCL between CUDA cards, and else over gloo. A process group that is there already is used.

    Raises:
        ArgumentError: torchrun's environment variables are incomplete, or the devices cannot train together.
        TrainingError: the others cannot be reached.
    """
    global _group
    started = dist.is_available() and dist.is_initialized()
    size = dist.get_world_size() if started else _size_from_environment()
    if size == 1 or _group.world_size > 1:
        return _group
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device='{device}' cannot train in {size} processes. Use CUDA cards, or device='cpu'.")
    try:
        if not started:
            _start(device)
        _group = ProcessGroup(dist.get_rank(), size, dist.new_group(backend="gloo", timeout=TIMEOUT))
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the {size} processes of this run cannot reach one another: {str(error).splitlines()[0]} Check "
            "MASTER_ADDR and MASTER_PORT, and that each of them was started."
        ) from error
    _check_cards(device)
    return _group


def _start(device: torch.device) -> None:
    torch_distributed: Any = dist  # whose types leave these two names out
    store, rank, size = next(torch_distributed.rendezvous("env://"))
    # The torchrun of one machine keeps its store when it restarts the processes, with the addresses of the dead in it.
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = torch_distributed.PrefixStore(f"after {_restarts()} restarts", store)
    card = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if card else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        device_id=device if card else None,
    )
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _size_from_environment() -> int:
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return 1
    odd = [name for name in ("WORLD_SIZE", *ENVIRONMENT[:2]) if not os.environ.get(name, "").isdecimal()]
    odd += [name for name in ENVIRONMENT[2:] if not os.environ.get(name)]
    if odd:
        raise ArgumentError(
            f"WORLD_SIZE={size} says that this is one of several processes, but {' and '.join(odd)} is missing or no "
            "number. Start them with torchrun --nproc-per-node=N, or unset WORLD_SIZE."
        )
    return int(size)


def _check_cards(device: torch.device) -> None:
    """Raise if two processes have one card, which NCCL refuses late and in other words."""
    places = _group.all_gather_object(f"{device} of {socket.gethostname()}")
    if device.type == "cuda" and len(set(places)) < len(places):
        twice = next(rank_and_size for rank_and_size in places if places.count(rank_and_size) > 1)
        raise ArgumentError(
            f"{places.count(twice)} processes were given {twice}. Use device='cuda', which takes a card for each, and "
            "start no more processes than there are cards."
        )


def torchrun_id() -> str | None:
    """A name of this run of torchrun, the same after each of its restarts; None if torchrun is not at work."""
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    # Without --rdzv-id every run has the same; but its processes have one parent, however often they are restarted.
    return f"{socket.gethostname()}:{os.getppid()}" if given == "none" else given


def restarted_run_id() -> str | None:
    """The name of this run of torchrun, if it was started anew after a failure."""
    return torchrun_id() if _restarts() > 0 else None


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def rank_seed(seed: int, rank: int) -> int:
    """The seed of what process `rank` draws by itself, dropout for example; `seed`, for the first one.

    >>> rank_seed(3, 0), rank_seed(3, 1) == rank_seed(3, 2)
    (3, False)
    """
    return seed if rank == 0 else int(np.random.SeedSequence((seed, rank)).generate_state(1)[0])


def local_world_size() -> int:
    """How many processes of the run share this machine and its memory."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Add up `tensor` over the processes, in rank_and_size."""
    with _collective_errors():
        dist.all_reduce(tensor)
    return tensor


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes, which have one shape, in their order."""
    parts = [torch.empty_like(tensor) for _ in range(_group.world_size)]
    with _collective_errors():
        dist.all_gather(parts, tensor.contiguous())
    return parts


@contextmanager
def _collective_errors() -> Iterator[None]:
    """Say what it means when the others do not answer."""
    try:
        yield
    except ImtransError:
        raise
    except RuntimeError as error:
        raise TrainingError(
            f"another process of this run has stopped or does not answer ({str(error).splitlines()[0]}). Its own "
            "output says why; resume from the newest checkpoint."
        ) from error
