from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imtrans import LabFacades, LabImages, PairedImages, ProceduralFacades, UnpairedFacades, UnpairedImages
from imtrans.data import cache as cache_module
from imtrans.data.cache import ImageCache, make_cache
from imtrans.data.crop_dataset import Jitter, SingleSourceDataset
from imtrans.data.loader import BatchLoader, batches
from imtrans.errors import ArgumentError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pairs of noise, of which no two crops are alike; and a folder in it with three more pictures."""
    path, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    (path / "few").mkdir()
    for i in range(8):
        noise = Image.fromarray(rng.integers(0, 256, (20 + i, 48, 3), dtype=np.uint8))
        noise.save(path / f"{i}.png" if i < 5 else path / "few" / f"{i}.png")
    return path


@cache
def make(kind, folder, **settings):
    """A data set, which is a function of its arguments: made once, because facades take their time."""
    if kind == "facades":
        return ProceduralFacades(5, size=16, seed=2, **settings)
    if kind == "unpaired facades":
        return UnpairedFacades(5, size=16, seed=2, **settings)
    if kind == "lab facades":
        return LabFacades(5, size=16, seed=2, **settings)
    if kind == "lab":
        return LabImages(folder, size=16, load_size=19, seed=2, **settings)
    if kind.startswith("unpaired"):
        return UnpairedImages(folder, folder / "few", size=16, load_size=19, seed=2, direction=kind[-4:], **settings)
    return PairedImages(folder, size=16, load_size=19, seed=2, **settings)


def check_equal(one, other):
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


KINDS = pytest.mark.parametrize(
    "kind", ["facades", "pairs", "unpaired, AtoB", "unpaired, BtoA", "unpaired facades", "lab", "lab facades"]
)  # fmt: skip


@KINDS
@pytest.mark.parametrize("augment", [True, False])
@given(
    epoch=st.integers(0, 400),
    batch_size=st.integers(1, 7),
    shuffle_seed=st.none() | st.integers(0, 99),
    skip=st.integers(0, 6),
)
def test_batches_are_exactly_those_that_are_loaded(folder, kind, augment, epoch, batch_size, shuffle_seed, skip):
    kept = make_cache(make(kind, folder, augment=augment), CPU)
    order = {"epoch": epoch, "shuffle_seed": shuffle_seed, "skip": skip}
    check_equal(kept.batches(batch_size, **order), batches(make(kind, folder, augment=augment), batch_size, **order))


@KINDS
def test_each_picture_is_decoded_once(folder, kind, monkeypatch):
    data, seen = make(kind, folder), []
    for side, source in enumerate(data.sources):
        load = source.load
        count = lambda index, load=load, side=side: seen.append((side, index)) or load(index)  # noqa: E731
        monkeypatch.setattr(source, "load", count)
    kept = ImageCache(data, CPU, CPU)
    for epoch in range(9):
        list(kept.batches(2, epoch=epoch, shuffle_seed=1))
    assert sorted(seen) == [(side, i) for side, source in enumerate(data.sources) for i in range(len(source))]


def test_a_batch_is_not_the_memory_that_is_kept(folder):
    kept = make_cache(make("pairs", folder, augment=False), CPU)
    before = [{name: image.clone() for name, image in batch.items()} for batch in kept.batches(2)]
    for batch in kept.batches(2):
        for image in batch.values():
            image.zero_()
    check_equal(kept.batches(2), before)


def test_pictures_that_do_not_fit_the_card_stay_in_ram_and_else_are_loaded(folder, monkeypatch):
    free = {"cuda": 4 * 5 * 2 * 3 * 19 * 19, "cpu": 10**9}
    monkeypatch.setattr(cache_module, "free_memory", lambda device: free[device.type])
    data, card = make("pairs", folder), torch.device("cuda", 0)
    assert make_cache(data, card).store == card
    free["cuda"] -= 1
    assert make_cache(data, card).store == CPU
    assert make_cache(data, card).device == card
    free["cpu"] = free["cuda"]
    assert make_cache(data, card) is None


def test_unpaired_pictures_need_the_room_of_both_folders(folder, monkeypatch):
    free = (5 + 3) * 3 * 19 * 19
    for share, kept in ((1, True), (1.01, False)):
        monkeypatch.setattr(cache_module, "MEMORY_FRACTION", 1 / share)
        monkeypatch.setattr(cache_module, "free_memory", lambda device: free)
        assert (make_cache(make("unpaired, AtoB", folder), CPU) is not None) is kept


def test_kept_elsewhere_and_sent_in_batches(folder):
    """The meta device has no values, but takes the way to another device."""
    for batch in ImageCache(make("pairs", folder), CPU, torch.device("meta")).batches(2):
        assert {image.device.type for image in batch.values()} == {"meta"}
        assert batch["source"].shape[1:] == (3, 16, 16)


class Darker(PairedImages):
    """Somebody's own augmentation."""

    def draw(self, index, epoch):
        return {name: image - 1 for name, image in super().draw(index, epoch).items()}


class First(PairedImages):
    def __getitem__(self, index):
        return super().__getitem__(0)


def test_a_data_set_with_a_sample_of_its_own_is_not_kept(folder):
    plain = [{"number": torch.tensor(1)}]
    others = [Darker(folder, size=16), First(folder, size=16), plain, [], None]
    assert [make_cache(data, CPU) for data in others] == [None] * 5
    check_equal(BatchLoader(CPU, cache=True, num_workers=0).batches(plain, 1), [{"number": torch.tensor([1])}])
    darker = BatchLoader(CPU, cache=True, num_workers=0).batches(Darker(folder, size=16), 2)
    check_equal(darker, batches(Darker(folder, size=16), 2))


def test_a_data_set_of_ones_own_can_be_kept():
    class Mine(SingleSourceDataset):
        def __init__(self):
            self.jitter, self.augment, self.seed = Jitter(4, 6), True, 0

        def __len__(self):
            return 3

        def load(self, index):
            return {"source": torch.arange(36, dtype=torch.uint8).reshape(1, 6, 6) + 36 * index}

    check_equal(make_cache(Mine(), CPU).batches(2, epoch=3), batches(Mine(), 2, epoch=3))


def test_a_feed_keeps_or_loads(folder, monkeypatch):
    data, decoded = make("pairs", folder), []
    read = type(data).load
    monkeypatch.setattr(type(data), "load", lambda self, index: decoded.append(index) or read(self, index))
    kept, loaded = BatchLoader(CPU, cache=True, num_workers=0), BatchLoader(CPU, cache=False, num_workers=2)
    check_equal(kept.batches(data, 2, epoch=1), loaded.batches(data, 2, epoch=1))
    decoded.clear()
    list(kept.batches(data, 2, epoch=2))
    assert decoded == []
    list(BatchLoader(CPU, cache=False, num_workers=0).batches(data, 2, epoch=2))
    assert sorted(decoded) == list(range(len(data)))


def test_iteration_leaves_the_global_random_state_alone(folder):
    state = torch.get_rng_state()
    list(make_cache(make("pairs", folder), CPU).batches(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_cutting_reads_no_value(folder, monkeypatch):
    data = make("pairs", folder)
    pixels, params = data.load(0)["source"][None], torch.tensor([data.crop_params(0, 1)[0][1:]])

    def refuse(*args):
        raise AssertionError("a tensor's value was read")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    data.jitter.crop(pixels, params)


def test_free_memory_is_told_for_the_cpu():
    assert 0 < cache_module.free_memory(CPU) < 2**50
    assert cache_module.free_memory(torch.device("meta")) == 0
    assert cache_module._available() >= cache_module.free_memory(CPU)


def test_whether_to_keep_is_yes_or_no():
    with pytest.raises(ArgumentError) as caught:
        BatchLoader(CPU, cache="yes", num_workers=0)
    assert str(caught.value) == "Trainer: keep_data must be True or False, got 'yes'."
