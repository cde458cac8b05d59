"""Which samples make up each batch of an epoch: a function of the seed, the epoch and the rank."""

import numpy as np

from imtrans.distributed.data_parallel import shard_range


def batch_indices(
    length: int,
    batch_size: int,
    *,
    epoch: int = 0,
    shuffle_seed: int | None = None,
    skip: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> list[list[int]]:
    """Return the sample indices of each batch of one epoch; arguments as for `imtrans.data.loader.batches`.

    >>> batch_indices(5, 4, rank=0, world_size=2), batch_indices(5, 4, rank=1, world_size=2)  # sample 4 is in both
    ([[0, 1], [4]], [[2, 3], [4]])
    """
    order = np.arange(length)
    if shuffle_seed is not None:
        order = np.random.default_rng((shuffle_seed, epoch)).permutation(order)
    whole = [order[i : i + batch_size].tolist() for i in range(0, length, batch_size)][skip:]
    return [[batch[i] for i in shard_range(len(batch), rank, world_size)] or batch[-1:] for batch in whole]
