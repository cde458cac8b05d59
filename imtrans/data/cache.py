"""A cache of decoded images: uint8 on the training device or in RAM, cropped to batches on the device."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from imtrans.data.crop_dataset import Batch, CropDataset, ImageSource
from imtrans.data.sampling import batch_indices
from imtrans.distributed.torchrun import local_world_size

MEMORY_FRACTION = 0.25
"""The part of the free memory that a cache may take."""


class ImageCache:
    """The images of `data`, each decoded by `fill` or when first needed; `store` holds them, `device` gets batches."""

    def __init__(self, data: CropDataset, store: torch.device, device: torch.device) -> None:
        self.data, self.store, self.device = data, store, device
        self._sources = [_CachedSource(source, store, device) for source in data.sources]

    def fill(self, *, progress: bool = False) -> None:
        """Decode all images, in threads; `progress` shows a bar. Raises the error of the first bad one."""
        for source in self._sources:  # the first image of a source allocates its memory
            source.load_missing([0])
        images = [(source, index) for source in self._sources for index in range(len(source.source))]
        # The filters of warnings are global: the reader's own filter would race in several threads.
        with warnings.catch_warnings(), ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // local_world_size())) as pool:
            warnings.simplefilter("ignore")
            loaded = pool.map(lambda image: image[0].load_missing([image[1]]), images)
            for _ in tqdm(loaded, "decoding", len(images), unit="image", disable=not progress, leave=False):
                pass

    def batches(self, batch_size: int, *, epoch: int = 0, **order: Any) -> Iterator[Batch]:
        """Yield the batches of one epoch on the device; arguments as for `imtrans.data.loader.batches`."""
        batches = batch_indices(len(self.data), batch_size, epoch=epoch, **order)
        params = [[self.data.crop_params(index, epoch) for index in batch] for batch in batches]
        # One transfer for the whole epoch: with one for each batch, the host would wait for the device.
        flat = torch.tensor([sample for batch in params for sample in batch]).reshape(-1, len(self._sources), 4)
        lengths = [len(batch) for batch in batches]
        on_device = flat.to(self.device).split(lengths)
        more = [self.data.sample_params(index, epoch) for batch in batches for index in batch]
        stacked = {name: torch.stack([each[name] for each in more]) for name in (more[0] if more else ())}
        more_on_device = {name: values.to(self.device).split(lengths) for name, values in stacked.items()}
        for number, (indices, batch, device_params) in enumerate(zip(batches, params, on_device, strict=True)):
            crops: Batch = {name: values[number] for name, values in more_on_device.items()}
            for i, source in enumerate(self._sources):
                for name, pixels in source.take([sample[i][0] for sample in batch], device_params[:, i, 0]):
                    crops[name] = self.data.jitter.crop(pixels, device_params[:, i, 1:], whole=self.data.whole)
            made = self.data.sample(crops)
            if self.data.transform is not None:
                each = ({name: values[i] for name, values in made.items()} for i in range(len(indices)))
                made = default_collate([self.data.transformed(s, i, epoch) for s, i in zip(each, indices, strict=True)])
            yield made


class _CachedSource:
    def __init__(self, source: ImageSource, store: torch.device, device: torch.device) -> None:
        self.source, self.store, self.device = source, store, device
        self._pixels: Batch = {}
        self._is_loaded = np.zeros(len(source), dtype=bool)

    def take(self, indices: list[int], device_indices: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the images at `indices`, which `device_indices` holds on the device."""
        self.load_missing(indices)
        for name, pixels in self._pixels.items():
            if self.store == self.device:
                yield name, pixels.index_select(0, device_indices)
            else:
                # From pinned memory, the copy to a CUDA device is asynchronous.
                few = pixels[indices].pin_memory() if self.device.type == "cuda" else pixels[indices]
                yield name, few.to(self.device, non_blocking=True)

    def load_missing(self, indices: list[int]) -> None:
        """Load the images at `indices` that are not in the cache."""
        for index in indices:
            if self._is_loaded[index]:
                continue
            for name, pixels in self.source.load(index).items():
                if name not in self._pixels:
                    shape = (len(self.source), *pixels.shape)
                    self._pixels[name] = torch.empty(shape, dtype=pixels.dtype, device=self.store)
                self._pixels[name][index] = pixels
            self._is_loaded[index] = True


def make_cache(data: object, device: torch.device) -> ImageCache | None:
    """Make a cache for `data` on `device`, or in RAM, if the images fit `MEMORY_FRACTION` of the free memory there.

    None if they fit neither, or if `data` is no `CropDataset`, has images of several sizes, or overrides ``draw`` or
    ``__getitem__``.
    """
    if not isinstance(data, CropDataset) or len(data) == 0 or not data.same_size:
        return None
    kind = type(data)
    if kind.draw is not CropDataset.draw or kind.__getitem__ is not CropDataset.__getitem__:
        return None
    if data.on_cpu:
        device = torch.device("cpu")
    needed = sum(len(source) * sum(pixels.nbytes for pixels in source.load(0).values()) for source in data.sources)
    for store in dict.fromkeys([device, torch.device("cpu")]):
        if needed <= MEMORY_FRACTION * free_memory(store):
            return ImageCache(data, store, device)
    return None


def free_memory(device: torch.device) -> int:
    """Return the free memory of `device` for this process, in bytes; 0 if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return 0
    free = [_available()]
    with suppress(OSError, ValueError):  # the limit of a container may be below the memory of the machine
        limit, used = (int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used)
    return max(0, min(free)) // local_world_size()  # each process has its own cache


def _available() -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 0
