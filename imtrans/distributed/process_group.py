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

NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Others wait while the first one validates or writes. That one of them died shows at once, by its closed connection.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Args:
        rank: which of them this is; the first one, 0, writes.
        size: how many there are.
        host: the group that tells what is not on a card.
    """

    rank: int = 0
    size: int = 1
    host: Any = None

    @property
    def place(self) -> tuple[int, int]:
        """Rank and size."""
        return self.rank, self.size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def gather_all(self, value: T) -> list[T]:
        """The values of all processes, in their order, in each of them."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with _together():
                dist.all_gather_object(values, value, group=self.host)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them. The others wait as long as it takes.

        Raises:
            Exception: what `make` raised in the first process; the others raise a TrainingError with its text.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        failure: Exception | None = None
        if self.first:
            try:
                told = [make(), None]
            except Exception as error:
                failure, told = error, [None, f"{type(error).__name__}: {error}"]
        with _together():
            dist.broadcast_object_list(told, src=0, group=self.host)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise TrainingError(f"the first process stopped the run: {told[1]}")
        return told[0]

    def largest(self, read: Callable[[], int]) -> Callable[[], int]:
        """Begin to tell the others a number; what is returned waits for theirs, and gives the largest.

        What `read` gives now is told. In one process nothing is, and it is read only when the answer is asked for.
        """
        if self.size == 1:
            return read
        told = torch.tensor(read())
        with _together():
            work = dist.all_reduce(told, dist.ReduceOp.MAX, group=self.host, async_op=True)

        def answer() -> int:
            with _together():
                work.wait()
            return int(told)

        return answer

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Copy the tensors of the first process to the others."""
        if self.size > 1:
            with torch.no_grad(), _together():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)

    def check_same(self, **facts: object) -> None:
        """Raise unless all processes were given the same.

        Raises:
            ArgumentError: they were not; the text says what differs, and in whom.
        """
        for name, values in {n: self.gather_all(fact) for n, fact in facts.items()}.items():
            for rank, value in enumerate(values):
                if value != values[0]:
                    raise ArgumentError(
                        f"the processes of this run differ in {name}: {values[0]} in the first one, {value} in number "
                        f"{rank}. Start all with the same arguments, data and version."
                    )


_world = World()


def world() -> World:
    """The processes that `join` has found; this one alone before it."""
    return _world


def join(device: torch.device) -> World:
    """Join the other processes of the run, if torchrun has started this one among several.

    Tensors go over NCCL between CUDA cards, and else over gloo. A process group that is there already is used.

    Raises:
        ArgumentError: torchrun's environment variables are incomplete, or the devices cannot train together.
        TrainingError: the others cannot be reached.
    """
    global _world
    started = dist.is_available() and dist.is_initialized()
    size = dist.get_world_size() if started else _size_from_environment()
    if size == 1 or _world.size > 1:
        return _world
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"device='{device}' cannot train in {size} processes. Use CUDA cards, or device='cpu'.")
    try:
        if not started:
            _start(device)
        _world = World(dist.get_rank(), size, dist.new_group(backend="gloo", timeout=PATIENCE))
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the {size} processes of this run cannot reach one another: {str(error).splitlines()[0]} Check "
            "MASTER_ADDR and MASTER_PORT, and that each of them was started."
        ) from error
    _check_cards(device)
    return _world


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
    odd = [name for name in ("WORLD_SIZE", *NEEDED[:2]) if not os.environ.get(name, "").isdecimal()]
    odd += [name for name in NEEDED[2:] if not os.environ.get(name)]
    if odd:
        raise ArgumentError(
            f"WORLD_SIZE={size} says that this is one of several processes, but {' and '.join(odd)} is missing or no "
            "number. Start them with torchrun --nproc-per-node=N, or unset WORLD_SIZE."
        )
    return int(size)


def _check_cards(device: torch.device) -> None:
    """Raise if two processes have one card, which NCCL refuses late and in other words."""
    places = _world.gather_all(f"{device} of {socket.gethostname()}")
    if device.type == "cuda" and len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ArgumentError(
            f"{places.count(twice)} processes were given {twice}. Use device='cuda', which takes a card for each, and "
            "start no more processes than there are cards."
        )


def job() -> str | None:
    """A name of this run of torchrun, the same after each of its restarts; None if torchrun is not at work."""
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    # Without --rdzv-id every run has the same; but its processes have one parent, however often they are restarted.
    return f"{socket.gethostname()}:{os.getppid()}" if given == "none" else given


def restarted_job() -> str | None:
    """The name of this run of torchrun, if it was started anew after a failure."""
    return job() if _restarts() > 0 else None


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def seed_of(seed: int, rank: int) -> int:
    """The seed of what process `rank` draws by itself, dropout for example; `seed`, for the first one.

    >>> seed_of(3, 0), seed_of(3, 1) == seed_of(3, 2)
    (3, False)
    """
    return seed if rank == 0 else int(np.random.SeedSequence((seed, rank)).generate_state(1)[0])


def processes_here() -> int:
    """How many processes of the run share this machine and its memory."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def total(tensor: Tensor) -> Tensor:
    """Add up `tensor` over the processes, in place."""
    with _together():
        dist.all_reduce(tensor)
    return tensor


def gather_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes, which have one shape, in their order."""
    parts = [torch.empty_like(tensor) for _ in range(_world.size)]
    with _together():
        dist.all_gather(parts, tensor.contiguous())
    return parts


@contextmanager
def _together() -> Iterator[None]:
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
