"""Batches in an order, and with an augmentation, that are functions of the seed and the epoch alone."""

import signal
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from imtrans.distributed.data_parallel import shard_range
from imtrans.errors import ImtransError

Batch = dict[str, Tensor]


class EpochDataset(Dataset[Batch]):
    """A data set as it is in one epoch: through its ``draw(index, epoch)``, or plainly if it has none."""

    def __init__(self, data: Any, epoch: int) -> None:
        self.data, self.epoch = data, epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Batch:
        return self.data.draw(index, self.epoch) if hasattr(self.data, "draw") else self.data[index]


def length_of(data: object) -> int:
    """How many samples `data` has; 0 for None."""
    return len(data) if isinstance(data, Sized) else 0


def batch_indices(
    length: int, batch_size: int, *, epoch: int = 0, shuffle_seed: int | None = None, process: tuple[int, int] = (0, 1)
) -> list[list[int]]:
    """The indices of each batch of one epoch; arguments as for `batches`.

    >>> batch_indices(5, 4, process=(0, 2)), batch_indices(5, 4, process=(1, 2))  # sample 4 stands in
    ([[0, 1], [4]], [[2, 3], [4]])
    """
    order = np.arange(length)
    if shuffle_seed is not None:
        order = np.random.default_rng((shuffle_seed, epoch)).permutation(order)
    whole = [order[i : i + batch_size].tolist() for i in range(0, length, batch_size)]
    return [[batch[i] for i in shard_range(len(batch), *process)] or batch[-1:] for batch in whole]


def batches(
    data: Dataset[Batch],
    batch_size: int,
    *,
    epoch: int = 0,
    shuffle_seed: int | None = None,
    skip: int = 0,
    process: tuple[int, int] = (0, 1),
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches of one epoch, the last one maybe smaller; without the first `skip`.

    Args:
        data: of dicts of tensors; see `EpochDataset`.
        batch_size: samples in a batch, of all processes together.
        epoch: decides the order and the augmentation.
        shuffle_seed: decides the order too; None for the order of `data`.
        skip: batches to leave out at the start, unread.
        process: rank and number of the processes that share each batch: it gives the part of that rank, see
            `imtrans.distributed.data_parallel.shard_range`, or where that is empty, one sample of the batch all the
            same.
        num_workers: processes that load.
        pin_memory: whether to load into memory that a CUDA card can fetch from by itself.

    Raises:
        ImtransError: what `data` raised, in a process that loads too.
    """
    order = batch_indices(length_of(data), batch_size, epoch=epoch, shuffle_seed=shuffle_seed, process=process)
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsSamples(EpochDataset(data, epoch)),
        batch_sampler=order[skip:],
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader's own draws must not shift those of dropout
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_the_run,
    )
    for batch in loader:
        if isinstance(batch, ImtransError):
            raise batch
        yield batch


class _ErrorsAsSamples(Dataset[Any]):
    """A data set that gives our errors as samples: the loader would put a worker's traceback before their text."""

    def __init__(self, data: EpochDataset) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Batch | ImtransError:
        try:
            return self.data[index]
        except ImtransError as error:
            return error


def _collate(samples: list[Any]) -> Any:
    return next((sample for sample in samples if isinstance(sample, ImtransError)), None) or default_collate(samples)


def _leave_signals_to_the_run(worker: int) -> None:
    """Outlive the signals that ask a run to stop: they reach its whole group, and it has a step to finish and to save.

    A second SIGTERM ends a process that loads: the loader's own, at its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
