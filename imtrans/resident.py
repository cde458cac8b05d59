"""Pictures that are decoded once and kept as bytes, from which each batch is cut where the training runs."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from imtrans.distributed import processes_here
from imtrans.errors import at_least, flag
from imtrans.images import Jitter
from imtrans.loading import Batch, batches, chunks, length_of

SHARE = 0.25  # of the memory that is free


class Pictures(Dataset[Batch], ABC):
    """A data set of pictures of one size, out of which a window is cut in each epoch.

    What is random in a sample is the window alone, a function of (seed, epoch, index). So the pictures can be kept
    as bytes, see `Resident`; a class that overrides ``draw`` or ``__getitem__`` is not kept.
    """

    jitter: Jitter
    augment: bool
    seed: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> Batch:
        """The pictures of sample `index` as uint8 tensors ``(c, h, w)``: `Jitter.large`, or without jitter `size`."""

    def at(self, index: int) -> int:
        """The index that is meant by `index`, which may count from the end.

        Raises:
            IndexError: there is no such sample.
        """
        return range(len(self))[index]

    @property
    def loaded_size(self) -> int:
        """Height and width of what `load` gives."""
        return self.jitter.large if self.augment else self.jitter.size

    def window(self, index: int, epoch: int) -> tuple[int, int, bool]:
        """Where `epoch` cuts sample `index`: see `Jitter.window`."""
        if not self.augment:
            return 0, 0, False
        return self.jitter.window(np.random.default_rng((self.seed, epoch, index)))

    def draw(self, index: int, epoch: int) -> Batch:
        """Return sample `index` as it is augmented in `epoch`."""
        index = self.at(index)
        window = torch.tensor([self.window(index, epoch)])
        return {name: self.jitter.cut(pixels[None], window)[0] for name, pixels in self.load(index).items()}

    def __getitem__(self, index: int) -> Batch:
        return self.draw(index, epoch=0)


class Resident:
    """The pictures of a data set, each decoded when it is first needed, and kept as bytes.

    Args:
        data: see `resident`, which tells whether it can be kept.
        store: where the bytes are.
        device: where the batches are.
    """

    def __init__(self, data: Pictures, store: torch.device, device: torch.device) -> None:
        self.data, self.store, self.device = data, store, device
        self._kept: Batch = {}
        self._there = np.zeros(len(data), dtype=bool)

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int = 0,
        shuffle_seed: int | None = None,
        skip: int = 0,
        process: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """The batches of `imtrans.loading.batches`, on the device."""
        parts = chunks(len(self.data), batch_size, epoch=epoch, shuffle_seed=shuffle_seed, process=process)[skip:]
        order = [index for part in parts for index in part]
        drawn = torch.tensor([(index, *self.data.window(index, epoch)) for index in order]).reshape(-1, 4)
        # The whole epoch at once: a transfer for each batch would make the host wait.
        on_device = drawn.to(self.device)
        start = 0
        for part in parts:
            self._load(part)
            chosen = on_device[start : start + len(part)]
            start += len(part)
            yield {name: self.data.jitter.cut(pixels, chosen[:, 1:]) for name, pixels in self._take(part, chosen)}

    def _load(self, indices: list[int]) -> None:
        for index in indices:
            if not self._there[index]:
                for name, pixels in self.data.load(index).items():
                    if name not in self._kept:
                        shape = (len(self.data), *pixels.shape)
                        self._kept[name] = torch.empty(shape, dtype=torch.uint8, device=self.store)
                    self._kept[name][index] = pixels
                self._there[index] = True

    def _take(self, part: list[int], chosen: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, kept in self._kept.items():
            if self.store == self.device:
                yield name, kept.index_select(0, chosen[:, 0])
            else:
                # Out of pinned memory the card fetches by itself.
                few = kept[part]
                few = few.pin_memory() if self.device.type == "cuda" else few
                yield name, few.to(self.device, non_blocking=True)


class Feed:
    """Batches of data sets: cut from what is kept where that can be done, and else loaded.

    Args:
        device: where the training runs.
        keep: whether to keep pictures; see `resident`.
        num_workers: processes that load what is not kept.

    Raises:
        ArgumentError: `keep` is no bool, or `num_workers` no whole number of at least 0.
    """

    def __init__(self, device: torch.device, *, keep: bool, num_workers: int) -> None:
        flag("Trainer", "keep_data", keep)
        self.device, self.keep = device, keep
        self.num_workers = at_least("Trainer", "num_workers", num_workers, 0)
        self._found: dict[int, tuple[object, Resident | None]] = {}

    def batches(self, data: Dataset[Batch], batch_size: int, **order: Any) -> Iterable[Batch]:
        """The batches of one epoch, in the order of `imtrans.loading.batches`."""
        if id(data) not in self._found:
            self._found[id(data)] = data, resident(data, self.device) if self.keep else None
        kept = self._found[id(data)][1]
        if kept is not None:
            return kept.batches(batch_size, **order)
        pinned = self.device.type == "cuda"
        return batches(data, batch_size, num_workers=self.num_workers, pin_memory=pinned, **order)


def resident(data: object, device: torch.device) -> Resident | None:
    """Keep the pictures of `data` on `device` if a quarter of its free memory holds them, else in RAM likewise.

    None if neither does, or if `data` is not `Pictures`, or a kind of them with a sample of its own.
    """
    if not isinstance(data, Pictures) or length_of(data) == 0:
        return None
    kind = type(data)
    if kind.draw is not Pictures.draw or kind.__getitem__ is not Pictures.__getitem__:
        return None
    needed = len(data) * sum(pixels.nbytes for pixels in data.load(0).values())
    for store in dict.fromkeys([device, torch.device("cpu")]):
        if needed <= SHARE * free_memory(store):
            return Resident(data, store, device)
    return None


def free_memory(device: torch.device) -> int:
    """Bytes that are free on `device`; 0 if nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return 0
    free = [_available()]
    with suppress(OSError, ValueError):  # a container may have less than the machine
        limit, used = (int(Path("/sys/fs/cgroup", f"memory.{what}").read_text()) for what in ("max", "current"))
        free.append(limit - used)
    return max(0, min(free)) // processes_here()  # each of them keeps its own


def _available() -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 0
