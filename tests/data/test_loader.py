import multiprocessing
import os
import signal
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans.data.loader import batches, length_of, to_device
from imtrans.errors import DataError


class Numbers(torch.utils.data.Dataset):
    """Sample i is i."""

    def __init__(self, length):
        self.length, self.read = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.read.append(index)
        return {"number": torch.tensor(index)}


class Epochs(Numbers):
    """Sample i is i + 100 times the epoch."""

    def draw(self, index, epoch):
        return {"number": torch.tensor(index + 100 * epoch)}


def loaded(data, batch_size, **settings):
    return [batch["number"].tolist() for batch in batches(data, batch_size, **settings)]


LENGTHS, SIZES, SEEDS, EPOCHS = st.integers(1, 20), st.integers(1, 8), st.integers(0, 2**16), st.integers(0, 300)


@given(length=LENGTHS, batch_size=SIZES, seed=SEEDS, epoch=EPOCHS)
def test_every_sample_comes_once_an_epoch_and_only_the_last_batch_is_smaller(length, batch_size, seed, epoch):
    found = loaded(Numbers(length), batch_size, shuffle_seed=seed, epoch=epoch)
    assert sorted(n for batch in found for n in batch) == list(range(length))
    assert all(len(batch) == batch_size for batch in found[:-1])
    assert len(found[-1]) == (length % batch_size or batch_size)


@given(length=LENGTHS, batch_size=SIZES, seed=SEEDS, epoch=EPOCHS, data=st.data())
def test_skipping_gives_the_tail_of_the_epoch_and_reads_nothing_else(length, batch_size, seed, epoch, data):
    full = loaded(Numbers(length), batch_size, shuffle_seed=seed, epoch=epoch)
    skip = data.draw(st.integers(0, len(full)))
    numbers = Numbers(length)
    assert loaded(numbers, batch_size, shuffle_seed=seed, epoch=epoch, skip=skip) == full[skip:]
    assert numbers.read == [n for batch in full[skip:] for n in batch]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {(s, e): loaded(Numbers(20), 20, shuffle_seed=s, epoch=e)[0] for s in range(3) for e in range(3)}
    assert len({tuple(order) for order in orders.values()}) == 9
    torch.manual_seed(5)
    assert loaded(Numbers(20), 20, shuffle_seed=1, epoch=2)[0] == orders[1, 2]


def test_without_a_seed_the_order_is_that_of_the_data():
    assert loaded(Numbers(5), 2, epoch=3) == [[0, 1], [2, 3], [4]]


def test_a_data_set_with_draw_is_asked_for_the_epoch():
    assert loaded(Epochs(3), 2, epoch=4) == [[400, 401], [402]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iteration_leaves_the_global_random_state_alone(num_workers):
    state = torch.get_rng_state()
    expected = loaded(Epochs(6), 2, shuffle_seed=0, epoch=1)
    assert loaded(Epochs(6), 2, shuffle_seed=0, epoch=1, num_workers=num_workers) == expected
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_ours_comes_out_with_its_own_text(num_workers):
    class Bad(Numbers):
        def __getitem__(self, index):
            if index == 3:
                raise DataError("3.jpg cannot be read.")
            return super().__getitem__(index)

    loading = batches(Bad(6), 2, num_workers=num_workers)
    assert next(loading)["number"].tolist() == [0, 1]
    with pytest.raises(DataError) as caught:
        next(loading)
    assert str(caught.value) == "3.jpg cannot be read."


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_does_not_stop_the_loading(signum):
    """The terminal, systemd and timeout send it to every process; the run has a step to finish and to save."""
    loading = batches(Numbers(40), 1, num_workers=2)
    assert next(loading)["number"].tolist() == [0]
    next(loading)  # each of the two has given a batch, and so is set up
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signum)
    assert [n for batch in loading for n in batch["number"].tolist()] == list(range(2, 40))
    assert multiprocessing.active_children() == []


def test_a_second_sigterm_ends_a_process_that_loads():
    loading = batches(Numbers(40), 1, num_workers=1)
    next(loading)
    (worker,) = multiprocessing.active_children()
    with suppress(RuntimeError):  # of the loader, when it notices
        while worker.is_alive():
            worker.terminate()
            worker.join(0.1)
    worker.join()
    assert worker.exitcode == -signal.SIGTERM


def test_a_list_is_a_data_set():
    samples = [{"number": torch.tensor(n)} for n in (7, 8, 9)]
    assert loaded(samples, 2) == [[7, 8], [9]]


def test_length_of_what_has_none_is_zero():
    assert length_of(Numbers(3)) == 3
    assert length_of(None) == 0
    assert length_of(iter([1])) == 0


class Samples(list):
    """Samples from a list, as a data set of the user's own."""


def first_batch(*samples, workers=0):
    return next(iter(batches(Samples(samples), len(samples), num_workers=workers)))


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_are_no_dicts_are_refused(workers):
    with pytest.raises(DataError) as caught:
        first_batch((torch.zeros(3), torch.zeros(3)), workers=workers)
    assert str(caught.value) == (
        "Samples: a sample must be a dict of tensors, got a tuple. Return a dict in __getitem__: "
        "{'source': source, 'target': target}."
    )


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            [{"source": torch.zeros(3, 4)}, {"source": torch.zeros(3, 5)}],
            "The samples of a batch differ in size: {'source': [(3, 4), (3, 5)]}. Give images of one size, for "
            "example with preprocess='resize_and_crop' of PairedImages, or batch_size=1.",
        ),
        (
            [{"source": torch.zeros(3), "mask": None}],
            "The samples of a batch cannot be joined: one holds 'source': Tensor, 'mask': NoneType. Each must have the "
            "same keys, with tensors, numbers or strings.",
        ),
        (
            [{"a": 1, "b": 1}, {"a": 1}],
            "The samples of a batch cannot be joined: one has no key 'b', and another has. Each must have the same "
            "keys, with tensors, numbers or strings.",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_cannot_be_joined_are_refused(samples, message, workers):
    with pytest.raises(DataError) as caught:
        first_batch(*samples, workers=workers)
    assert str(caught.value) == message


def test_strings_are_carried_along():
    batch = first_batch({"source": torch.zeros(3), "path": "a.png"}, {"source": torch.ones(3), "path": "b.png"})
    moved = to_device(batch, torch.device("cpu"))
    assert moved["path"] == ["a.png", "b.png"]
    assert torch.equal(moved["source"], batch["source"])
    assert to_device(batch, torch.device("meta"))["source"].is_meta
