import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imtrans import (
    LabFacades,
    LabImages,
    PairedImages,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    UNetGenerator,
    UnpairedFacades,
    UnpairedImages,
)
from imtrans.data import cache as cache_module
from imtrans.data.cache import ImageCache, make_cache
from imtrans.data.crop_dataset import Jitter, SingleSourceDataset
from imtrans.data.loader import BatchLoader, batches
from imtrans.errors import ArgumentError, DataError

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


def test_filling_decodes_each_image_once_and_changes_no_batch(folder, monkeypatch):
    data, seen = make("unpaired, AtoB", folder), []
    expected = list(make_cache(data, CPU).batches(2, epoch=1))
    for source in data.sources:
        load = source.load
        monkeypatch.setattr(source, "load", lambda index, load=load: seen.append(index) or load(index))
    filled = ImageCache(data, CPU, CPU)
    filters = warnings.filters[:]
    filled.fill()
    assert warnings.filters == filters  # the readers of several threads change them
    assert sorted(seen) == sorted([*range(5), *range(3)])
    check_equal(filled.batches(2, epoch=1), expected)
    assert len(seen) == 8


@pytest.fixture
def damaged(tmp_path):
    """Twelve pairs; the header of the seventh is intact, its pixels are not."""
    rng = np.random.default_rng(1)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(tmp_path / f"{i:02d}.jpg")
    path = tmp_path / "06.jpg"
    path.write_bytes(path.read_bytes()[:-900])
    return tmp_path


def trainer(data, out, **settings):
    method = Pix2Pix(UNetGenerator(base_channels=4, depth=3), None)
    return Trainer(method, data, out=out, epochs=1, device="cpu", precision="fp32", **settings)


def test_a_damaged_image_ends_a_run_before_its_first_step(damaged, tmp_path):
    out, stepped = tmp_path / "run", []
    run = trainer(PairedImages(damaged, size=16), out, progress=False)
    run.method.step = lambda *_: stepped.append(1)
    with pytest.raises(DataError) as caught:
        run.fit()
    assert str(caught.value).startswith(f"{damaged / '06.jpg'} cannot be read as a picture (image file is truncated")
    assert str(caught.value).endswith('To train without such files: on_bad_image="skip" (--on-bad-image skip).')
    assert not stepped
    assert not (out / "config.json").exists()  # the folder is free for the next attempt
    with pytest.warns(UserWarning, match="1 of 12 samples is bad and left out"):
        data = PairedImages(damaged, size=16, on_bad_image="skip")
    assert data.files == [f"{i:02d}.jpg" for i in range(12) if i != 6]
    trainer(data, out, progress=False).fit()


def test_a_damaged_validation_image_is_found_before_the_first_step(damaged, folder, tmp_path):
    run = trainer(PairedImages(folder, size=16), tmp_path / "run", val_data=PairedImages(damaged, size=16))
    with pytest.raises(DataError, match="06"):
        run.fit()
    assert run.step == 0


def test_progress_shows_the_decoding_or_says_that_pixels_are_not_checked(folder, tmp_path, capsys):
    data = PairedImages(folder, size=16)
    trainer(data, None, max_steps=1).fit()
    assert "decoding: " in capsys.readouterr().err
    trainer(data, None, max_steps=1, keep_data=False).fit()
    said = (
        "Not cached: 5 samples of PairedImages. File headers are checked, pixels are not yet. "
        'on_bad_image="skip" (--on-bad-image skip) decodes every file first.'
    )
    assert said in capsys.readouterr().err
    trainer(data, None, max_steps=1, keep_data=False, progress=False).fit()
    assert capsys.readouterr().err == ""


def test_a_data_set_without_files_is_loaded_when_needed():
    data = ProceduralFacades(400, size=16)
    trainer(data, None, max_steps=2, progress=False).fit()
    assert len(data._drawn) <= 2 + 1 + 4  # the steps', the one that sizes the cache, and the samples'
