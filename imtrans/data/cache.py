"""SingleSourceDataset that are decoded once and kept as bytes, from which each batch is cut where the training runs."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from imtrans.checks import at_least, check_bool
from imtrans.data.images import Jitter
from imtrans.data.loader import Batch, batch_indices, batches, length_of
from imtrans.distributed.torchrun import local_world_size

MEMORY_FRACTION = 0.25  # of the memory that is free
CropParams = tuple[int, int, int, bool]
"""Which picture, the left and top edge of the window in it, and whether that is mirrored."""


class ImageSource(Protocol):
    """SingleSourceDataset of one size, by number."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Batch:
        """Picture `index`, or those that belong together there, by name: uint8 tensors ``(c, h, w)``."""


class CropDataset(Dataset[Batch], ABC):
    """A data set whose samples are windows, each cut out of a picture of one size that never changes.

    What is random in a sample is `crop_params` alone. So the pictures can be kept as bytes, see `ImageCache`; a class
    that overrides ``draw`` or ``__getitem__`` is not kept.
    """

    jitter: Jitter
    augment: bool
    seed: int
    paired = True  # whether the source and target of a sample show the same picture

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def sources(self) -> Sequence[ImageSource]:
        """Where the pictures are: a sample has one of each source, `loaded_size` high and wide."""

    @abstractmethod
    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """What sample `index` is in `epoch`: of each source, which picture, and where it is cut."""

    def sample(self, windows: Batch) -> Batch:
        """What a sample, or a batch of them, makes of its windows, floats in [-1, 1]: here, nothing else.

        It runs where the training does, and maps each window by itself, whatever axes come before ``c h w``.
        """
        return windows

    def at(self, index: int) -> int:
        """The index that is meant by `index`, which may count from the end.

        Raises:
            IndexError: there is no such sample.
        """
        return range(len(self))[index]

    @property
    def loaded_size(self) -> int:
        """Height and width of the pictures: `Jitter.large`, or without augmentation `Jitter.size`."""
        return self.jitter.large if self.augment else self.jitter.size

    def draw(self, index: int, epoch: int) -> Batch:
        """Return sample `index` as it is augmented in `epoch`."""
        windows: Batch = {}
        for source, (picture, *window) in zip(self.sources, self.crop_params(self.at(index), epoch), strict=True):
            for name, pixels in source.load(picture).items():
                windows[name] = self.jitter.cut(pixels[None], torch.tensor([window]))[0]
        return self.sample(windows)

    def __getitem__(self, index: int) -> Batch:
        return self.draw(index, epoch=0)


class SingleSourceDataset(CropDataset):
    """`CropDataset` of one source: sample i is picture i, or the pictures that belong together there.

    All of them have the same window, a function of (seed, epoch, index).
    """

    @abstractmethod
    def load(self, index: int) -> Batch:
        """The pictures of sample `index` as uint8 tensors ``(c, h, w)`` of `loaded_size`."""

    @property
    def sources(self) -> "Sequence[ImageSource]":
        """The data set itself."""
        return (self,)

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Picture `index`, and where `epoch` crop_params it: see `Jitter.window`."""
        if not self.augment:
            return [(index, 0, 0, False)]
        return [(index, *self.jitter.window(np.random.default_rng((self.seed, epoch, index))))]


class ImageCache:
    """The pictures of a data set, each decoded when it is first needed, and kept as bytes.

    Args:
        data: see `make_cache`, which tells whether it can be kept.
        store: where the bytes are.
        device: where the batches are.
    """

    def __init__(self, data: CropDataset, store: torch.device, device: torch.device) -> None:
        self.data, self.store, self.device = data, store, device
        self._kept = [_CachedSource(source, store, device) for source in data.sources]

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int = 0,
        shuffle_seed: int | None = None,
        skip: int = 0,
        process: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """The batches of `imtrans.data.loader.batches`, on the device."""
        parts = batch_indices(len(self.data), batch_size, epoch=epoch, shuffle_seed=shuffle_seed, process=process)[
            skip:
        ]
        crop_params = [[self.data.crop_params(index, epoch) for index in part] for part in parts]
        # The whole epoch at once: a transfer for each batch would make the host wait.
        drawn = torch.tensor([sample for part in crop_params for sample in part]).reshape(-1, len(self._kept), 4)
        on_device = drawn.to(self.device).split([len(part) for part in parts])
        for part, chosen in zip(crop_params, on_device, strict=True):
            windows: Batch = {}
            for source, kept in enumerate(self._kept):
                indices = [sample[source][0] for sample in part]
                for name, pixels in kept.take(indices, chosen[:, source, 0]):
                    windows[name] = self.data.jitter.cut(pixels, chosen[:, source, 1:])
            yield self.data.sample(windows)


class _CachedSource:
    """One source of a `ImageCache`."""

    def __init__(self, source: ImageSource, store: torch.device, device: torch.device) -> None:
        self.source, self.store, self.device = source, store, device
        self._pixels: Batch = {}
        self._there = np.zeros(len(source), dtype=bool)

    def take(self, indices: list[int], on_device: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The pictures of `indices`, which are told on the device too."""
        self._load(indices)
        for name, pixels in self._pixels.items():
            if self.store == self.device:
                yield name, pixels.index_select(0, on_device)
            else:
                # Out of pinned memory the card fetches by itself.
                few = pixels[indices]
                few = few.pin_memory() if self.device.type == "cuda" else few
                yield name, few.to(self.device, non_blocking=True)

    def _load(self, indices: list[int]) -> None:
        for index in indices:
            if not self._there[index]:
                for name, pixels in self.source.load(index).items():
                    if name not in self._pixels:
                        shape = (len(self.source), *pixels.shape)
                        self._pixels[name] = torch.empty(shape, dtype=torch.uint8, device=self.store)
                    self._pixels[name][index] = pixels
                self._there[index] = True


class BatchLoader:
    """Batches of data sets: cut from what is kept where that can be done, and else loaded.

    Args:
        device: where the training runs.
        keep: whether to keep pictures; see `make_cache`.
        num_workers: processes that load what is not kept.

    Raises:
        ArgumentError: `keep` is no bool, or `num_workers` no whole number of at least 0.
    """

    def __init__(self, device: torch.device, *, keep: bool, num_workers: int) -> None:
        check_bool("Trainer", "keep_data", keep)
        self.device, self.keep = device, keep
        self.num_workers = at_least("Trainer", "num_workers", num_workers, 0)
        self._found: dict[int, tuple[object, ImageCache | None]] = {}

    def batches(self, data: Dataset[Batch], batch_size: int, **order: Any) -> Iterable[Batch]:
        """The batches of one epoch, in the order of `imtrans.data.loader.batches`."""
        if id(data) not in self._found:
            self._found[id(data)] = data, make_cache(data, self.device) if self.keep else None
        kept = self._found[id(data)][1]
        if kept is not None:
            return kept.batches(batch_size, **order)
        pinned = self.device.type == "cuda"
        return batches(data, batch_size, num_workers=self.num_workers, pin_memory=pinned, **order)


def make_cache(data: object, device: torch.device) -> ImageCache | None:
    """Keep the pictures of `data` on `device` if a quarter of its free memory holds them, else in RAM likewise.

    None if neither does, or if `data` is not `CropDataset`, or a kind of them with a sample of its own.
    """
    if not isinstance(data, CropDataset) or length_of(data) == 0:
        return None
    kind = type(data)
    if kind.draw is not CropDataset.draw or kind.__getitem__ is not CropDataset.__getitem__:
        return None
    needed = sum(len(source) * sum(pixels.nbytes for pixels in source.load(0).values()) for source in data.sources)
    for store in dict.fromkeys([device, torch.device("cpu")]):
        if needed <= MEMORY_FRACTION * free_memory(store):
            return ImageCache(data, store, device)
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
    return max(0, min(free)) // local_world_size()  # each of them keeps its own


def _available() -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 0
