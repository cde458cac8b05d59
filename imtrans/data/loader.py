"""Batches of one epoch, from worker processes or from the cache."""

import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from imtrans.checks import at_least, check_bool
from imtrans.data.cache import ImageCache, make_cache
from imtrans.data.crop_dataset import Batch as Batch
from imtrans.data.sampling import batch_indices
from imtrans.errors import ArgumentError, DataError, ImtransError, counted, join_names, short_repr


class BatchLoader:
    """Batches for the training device: from an `imtrans.data.cache.ImageCache` of each data set, else from `batches`.

    Args:
        device: the training device.
        cache: whether to cache the data sets that can be cached.
        num_workers: worker processes for the other data sets, at least 0.

    Raises:
        ArgumentError: `cache` or `num_workers` has another value.
    """

    def __init__(self, device: torch.device, *, cache: bool, num_workers: int) -> None:
        check_bool("Trainer", "keep_data", cache)
        self.device, self.cache = device, cache
        self.num_workers = at_least("Trainer", "num_workers", num_workers, 0)
        # The data set is held too: its id stays its own.
        self._caches: dict[int, tuple[object, ImageCache | None]] = {}

    def prepare(self, data: object, *, progress: bool) -> None:
        """Decode the images that the cache of `data` will hold, so that a damaged file is found before training.

        With `progress`, shows a bar, or says that the files of an uncached data set are not decoded yet. A data set
        without an attribute `files` reads none: its images are loaded when they are first needed.

        Raises:
            ImtransError: `data` raised it.
        """
        if not hasattr(data, "files"):
            return
        cache = self._cache_of(data)
        if cache is not None:
            cache.fill(progress=progress)
        elif progress and getattr(data, "on_bad_image", None) == "error":
            tqdm.write(
                f"Not cached: {counted(length_of(data), 'sample')} of {type(data).__name__}. File headers are checked, "
                'pixels are not yet. on_bad_image="skip" (--on-bad-image skip) decodes every file first.',
                file=sys.stderr,
            )

    def _cache_of(self, data: object) -> ImageCache | None:
        if id(data) not in self._caches:
            self._caches[id(data)] = data, make_cache(data, self.device) if self.cache else None
        return self._caches[id(data)][1]

    def batches(self, data: Dataset[Batch], batch_size: int, **order: Any) -> Iterable[Batch]:
        """Return the batches of one epoch; further arguments as for `batches`."""
        cache = self._cache_of(data)
        if cache is not None:
            return cache.batches(batch_size, **order)
        pinned = self.device.type == "cuda"
        return batches(data, batch_size, num_workers=self.num_workers, pin_memory=pinned, **order)


def check_data(owner: str, argument: str, data: object) -> None:
    """Raise an ArgumentError if `data` is a DataLoader, as `owner` makes the batches itself, or has no length."""
    if isinstance(data, DataLoader):
        raise ArgumentError(
            f"{owner}: {argument} is a DataLoader, and {owner} makes batches itself. Pass the data set of the loader "
            f"and its batch size: {argument}=loader.dataset, batch_size={data.batch_size}. Its sampler and collate_fn "
            "are not used."
        )
    if data is not None and not isinstance(data, Sized):
        raise ArgumentError(
            f"{owner}: {argument} is a {type(data).__name__}, which has no length. Give a data set with __len__ and "
            "__getitem__, or a list of its samples."
        )


def check_sample(owner: str, sample: object) -> None:
    """Raise a DataError unless `sample`, or a batch of samples, is a dict."""
    if not isinstance(sample, Mapping):
        raise DataError(
            f"{owner}: a sample must be a dict of tensors, got a {type(sample).__name__}. Return a dict in "
            "__getitem__: {'source': source, 'target': target}."
        )


def check_columns(owner: str, batch: Batch, columns: Iterable[str]) -> None:
    """Raise a DataError if `batch` lacks one of `columns`. The text names the keys to rename."""
    if missing := [name for name in columns if name not in batch]:
        others = [name for name, value in batch.items() if name not in columns and isinstance(value, Tensor)]
        renamed = ", ".join(f"{new!r}: sample[{old!r}]" for new, old in zip(missing, others, strict=False))
        advice = f"Rename them in the data set: {{{renamed}}}." if renamed else "Add it in the data set."
        raise DataError(
            f"{owner}: a sample needs {join_names([repr(name) for name in missing])}, and the data set gives "
            f"{join_names([repr(name) for name in batch])}. {advice}"
        )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch to `device`. Other values, such as lists of file names, stay as they are."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def length_of(data: object) -> int:
    """Return the number of samples in `data`; 0 for an object without a length."""
    return len(data) if isinstance(data, Sized) else 0


def batches(
    data: Dataset[Batch],
    batch_size: int,
    *,
    epoch: int = 0,
    shuffle_seed: int | None = None,
    skip: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of one epoch; the last one may be smaller.

    Args:
        data: a data set of dicts of tensors; see `EpochDataset`.
        batch_size: samples in a batch, of all processes together.
        epoch: the order and the augmentation depend on it.
        shuffle_seed: the order depends on it; None for the order of `data`.
        skip: the number of batches to leave out at the start, without loading them.
        rank: this process of `world_size` gets its `imtrans.distributed.data_parallel.shard_range` of each batch, or
            the last sample of the batch if that is empty.

    Raises:
        ImtransError: `data` raised it, here or in a worker process.
    """
    shard = {"skip": skip, "rank": rank, "world_size": world_size}
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsSamples(data, epoch),
        batch_sampler=batch_indices(length_of(data), batch_size, epoch=epoch, shuffle_seed=shuffle_seed, **shard),
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else the DataLoader would draw from the global generator
        collate_fn=_collate,
        worker_init_fn=_ignore_stop_signals,
    )
    for batch in loader:
        if isinstance(batch, ImtransError):
            raise batch
        yield batch


class EpochDataset(Dataset[Batch]):
    """A data set in one epoch: ``data.draw(index, epoch)`` if `data` has that method, else ``data[index]``."""

    def __init__(self, data: Any, epoch: int) -> None:
        self.data, self.epoch = data, epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Batch:
        return self.data.draw(index, self.epoch) if hasattr(self.data, "draw") else self.data[index]


class _ErrorsAsSamples(EpochDataset):
    """Returns our errors as samples: the DataLoader would put a worker's traceback before their text."""

    def __getitem__(self, index: int) -> Any:
        try:
            sample = super().__getitem__(index)
            check_sample(type(self.data).__name__, sample)
        except ImtransError as error:
            return error
        return sample


def collate(samples: list[Any]) -> Batch:
    """Join samples to a batch: tensors and numbers are stacked, strings become lists.

    Raises:
        DataError: samples that cannot be joined.
    """
    try:
        return default_collate(samples)
    except (TypeError, KeyError) as error:
        problem = (
            f"has no key {error}, and another has" if isinstance(error, KeyError) else f"holds {_kinds(samples[0])}"
        )
        raise DataError(
            f"The samples of a batch cannot be joined: one {problem}. Each must have the same keys, with tensors, "
            "numbers or strings."
        ) from error
    except RuntimeError as error:
        if "equal size" not in str(error):
            raise
        shapes = {
            name: [tuple(s[name].shape) for s in samples] for name, v in samples[0].items() if isinstance(v, Tensor)
        }
        raise DataError(
            f"The samples of a batch differ in size: {short_repr(shapes)}. Give images of one size, for example with "
            "preprocess='resize_and_crop' of PairedImages, or batch_size=1."
        ) from error


def _kinds(sample: Any) -> str:
    return join_names([f"{name!r}: {type(value).__name__}" for name, value in sample.items()])


def _collate(samples: list[Any]) -> Any:
    error = next((sample for sample in samples if isinstance(sample, ImtransError)), None)
    try:
        return error or collate(samples)
    except ImtransError as found:
        return found


def _ignore_stop_signals(worker: int) -> None:
    """Keep a worker alive when the whole process group gets a signal: the run still finishes its step and saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A second SIGTERM, which the DataLoader sends at its end, ends the worker.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
