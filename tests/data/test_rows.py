"""Pairs from rows of PIL pictures: the same samples as from files, and the same checks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from imtrans import DerivedPairs, PairedImages, PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator
from imtrans.data.cache import make_cache
from imtrans.data.image_folder import SKIP_HINT
from imtrans.data.loader import batches
from imtrans.errors import ArgumentError, CheckpointError, DataError

COLUMNS = ("imageA", "imageB")


def picture(number, size=(40, 30), mode="RGB"):
    rng = np.random.default_rng(number)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 4096, size[::-1], dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 4), dtype=np.uint8), "RGBA").convert(mode)


def rows_of(count=5, **settings):
    return [{"imageA": picture(2 * i, **settings), "imageB": picture(2 * i + 1, **settings)} for i in range(count)]


def write(folder, rows):
    for column, name in zip(COLUMNS, "AB", strict=True):
        (folder / name).mkdir()
        for i, row in enumerate(rows):
            row[column].save(folder / name / f"{i}.png")
    return folder


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def add_noise(source, target, generator):
    return source, target + torch.rand(target.shape, generator=generator) - 0.5


def error_of(kind, rows, **settings):
    with pytest.raises(kind) as caught:
        PairedImages.from_rows(rows, **settings)
    return str(caught.value)


SETTINGS = [
    {},
    {"size": (16, 24), "load_size": 32, "flip": False, "seed": 3},
    {"size": 20, "augment": False},
    {"size": 20, "preprocess": "crop"},
    {"size": 20, "preprocess": "none"},
    {"size": 20, "preprocess": "scale_width_and_crop", "resample": "nearest"},
    {"size": 20, "labels": "facades"},
    {"size": 20, "transform": add_noise},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
def test_samples_are_the_same_as_from_files(tmp_path, settings):
    rows = rows_of()
    files = PairedImages(write(tmp_path, rows), **settings)
    data = PairedImages.from_rows(rows, *COLUMNS, **settings)
    assert (len(data), data.sizes, data.channels, data.palette) == (5, files.sizes, files.channels, files.palette)
    assert (data.jitter, data.seed, data.same_size, data.whole) == (files.jitter, files.seed, True, files.whole)
    for index in range(5):
        for epoch in (0, 7):
            assert same(data.draw(index, epoch), files.draw(index, epoch))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LAB", "1"])
def test_pictures_of_other_modes_become_rgb_as_files_do(tmp_path, mode):
    rows = [{"imageA": picture(0).convert("L" if mode == "1" else "RGB"), "imageB": picture(1)}]
    rows[0]["imageA"] = Image.new("LAB", (40, 30), (90, 20, 200)) if mode == "LAB" else rows[0]["imageA"].convert(mode)
    for column, name in zip(COLUMNS, "AB", strict=True):
        (tmp_path / name).mkdir()
        rows[0][column].save(tmp_path / name / "0.tif")
    data, files = PairedImages.from_rows(rows, *COLUMNS, size=20), PairedImages(tmp_path, size=20)
    assert same(data[0], files[0])


def test_the_range_of_pictures_of_16_bits(tmp_path):
    rows = rows_of(mode="I;16")
    settings = {"size": 20, "value_range": (0, 4095)}
    files = PairedImages(write(tmp_path, rows), **settings)
    assert same(PairedImages.from_rows(rows, *COLUMNS, **settings)[2], files[2])


def test_the_orientation_is_followed():
    turned = picture(0, size=(30, 40))
    turned.getexif()[0x0112] = 6
    upright = turned.transpose(Image.Transpose.ROTATE_270)
    rows = [{"imageA": turned, "imageB": picture(1)}]
    data = PairedImages.from_rows(rows, size=20)
    assert data.sizes == [(40, 30)]
    assert same(data[0], PairedImages.from_rows([{**rows[0], "imageA": upright}], size=20)[0])


def test_source_and_target_are_the_columns_named():
    rows = [{"imageA": Image.new("RGB", (8, 8)), "imageB": Image.new("RGB", (8, 8), "white"), "label": 3}]
    sample = PairedImages.from_rows(rows, size=8)[0]
    assert (sample["source"].unique().tolist(), sample["target"].unique().tolist()) == ([1.0], [-1.0])
    sample = PairedImages.from_rows(rows, "imageA", "imageB", size=8)[0]
    assert (sample["source"].unique().tolist(), sample["target"].unique().tolist()) == ([-1.0], [1.0])


def test_it_says_what_it_is():
    data = PairedImages.from_rows(rows_of(2), name="hf:user/pairs, train", size=20, seed=1)
    jitter = "as Jitter(size=20, load_size=None, flip=True)"
    assert repr(data) == f"2 pairs of rows in hf:user/pairs, train, 40x30 pixels, imageB to imageA, {jitter}"
    assert data.settings == f"pairs of rows in hf:user/pairs, train, imageB to imageA, {jitter}"
    assert data.files == ["row 0", "row 1"]


class Counted(list):
    """Rows that note when they are read."""

    def __getitem__(self, index):
        self.reads.append(index)
        return super().__getitem__(index)


def test_rows_are_cached_and_a_batch_is_the_same_as_without():
    rows = Counted(rows_of(9))
    rows.reads = []
    data = PairedImages.from_rows(rows, size=20)
    cache = make_cache(data, torch.device("cpu"))
    cache.fill()
    order = {"epoch": 1, "shuffle_seed": 0}
    rows.reads.clear()
    cached = list(cache.batches(4, **order))
    assert rows.reads == []
    for workers in (0, 2):
        for a, b in zip(cached, batches(data, 4, num_workers=workers, **order), strict=True):
            assert same(a, b)


def test_targets_are_photos_for_derived_pairs():
    data = DerivedPairs(PairedImages.from_rows(rows_of(2), size=20), "grey")
    assert data[0]["source"].shape == (1, 20, 20)
    assert data.files == ["row 0", "row 1"]


# Resuming


def trainer(out, rows, *, epochs=2, max_steps=None, name="rows", **settings):
    torch.manual_seed(0)
    method = Pix2Pix(UNetGenerator(base_channels=2, depth=2), PatchDiscriminator(base_channels=2, n_layers=1))
    data = PairedImages.from_rows(rows, size=16, name=name, **settings)
    run = {"epochs": epochs, "device": "cpu", "precision": "fp32", "progress": False, "checkpoint_every": 1}
    return Trainer(method, data, out=out, max_steps=max_steps, **run)


def weights(trainer):
    return nn.utils.parameters_to_vector(trainer.method.parameters())


def test_a_run_is_resumed_as_if_it_had_not_stopped(tmp_path):
    rows = rows_of(3)
    whole = trainer(tmp_path / "whole", rows)
    whole.fit()
    trainer(tmp_path / "stopped", rows, max_steps=4).fit()
    again = trainer(tmp_path / "stopped", rows)
    again.fit(resume=True)
    assert torch.equal(weights(again), weights(whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "others"}, "data was '3 pairs of rows in rows, 40x30"),
        ({"source": "imageA", "target": "imageB"}, "imageA to imageB"),
        ({"rows": rows_of(4)}, "1 of 4 files is not among the 3 of the run: row 3"),
    ],
    ids=["name", "columns", "rows"],
)
def test_other_rows_are_refused(tmp_path, change, message):
    trainer(tmp_path, rows_of(3)).fit()
    with pytest.raises(CheckpointError) as caught:
        trainer(tmp_path, **{"rows": rows_of(3), **change}).fit(resume=True)
    assert message in str(caught.value)


def test_fewer_rows_may_continue(tmp_path, capsys):
    rows = rows_of(3)
    trainer(tmp_path, rows, epochs=1).fit()
    rows[1]["imageA"] = None
    with pytest.warns(UserWarning, match="1 of 3 samples is bad and left out"):
        trainer(tmp_path, rows, epochs=2, on_bad_image="skip").fit(resume=True)
    assert "without 1 of 3 files: row 1." in capsys.readouterr().err


# Bad rows


class Broken:
    """A row that is decoded when it is read."""

    def __getitem__(self, column):
        raise OSError("image file is truncated")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Broken(), "pairs, row 1 cannot be read (image file is truncated). Repair the row, or leave it out."),
        ({"imageA": picture(0)}, "pairs, row 1 cannot be read ('imageB'). Repair the row, or leave it out."),
        (
            None,
            "pairs, row 1 cannot be read ('NoneType' object is not subscriptable). Repair the row, or leave it out.",
        ),
        (
            {"imageA": None, "imageB": picture(0)},
            "pairs, row 1, imageA holds None, not a PIL picture. Leave the row out.",
        ),
        (
            {"imageA": picture(0), "imageB": {"path": "a.png"}},
            "pairs, row 1, imageB holds {'path': 'a.png'}, not a PIL picture. Leave the row out.",
        ),
        (
            {"imageA": picture(0), "imageB": picture(0, size=(20, 20))},
            "pairs, row 1, imageB is 20x20, its partner pairs, row 1, imageA is 40x30. The two pictures of a pair must "
            "be of one size.",
        ),
    ],
    ids=["broken", "column", "none", "picture", "undecoded", "sizes"],
)
def test_a_bad_row_is_named_or_left_out(row, message):
    rows = rows_of(3)
    rows[1] = row
    assert error_of(DataError, rows, name="pairs") == f"{message} {SKIP_HINT}"
    with pytest.warns(UserWarning, match="1 of 3 samples is bad and left out"):
        data = PairedImages.from_rows(rows, name="pairs", on_bad_image="skip", size=20)
    assert (data.files, data.bad_images) == (["row 0", "row 2"], [message])
    good = PairedImages.from_rows([rows[0], rows[2]], size=20)
    assert same(data[0], good[0])
    assert same(data[1], good[1])


def test_values_out_of_range_are_named_when_they_are_read():
    rows = [{"imageA": Image.fromarray(np.full((8, 8), 7.0, np.float32)), "imageB": Image.new("RGB", (8, 8))}]
    data = PairedImages.from_rows(rows, size=8)
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value).startswith(
        "rows, row 0, imageA has values from 7 to 7; a picture of mode 'F' holds 0 to 1"
    )
    with pytest.raises(DataError, match="not one of 1 sample can be used"):
        PairedImages.from_rows(rows, size=8, on_bad_image="skip")


def test_a_row_that_changes_later_is_an_error():
    rows = rows_of(2)
    data = PairedImages.from_rows(rows, size=20, preprocess="crop")
    rows[0] = rows_of(1, size=(50, 30))[0]
    with pytest.raises(DataError, match="row 0, imageB has another size than when the data set was made"):
        data[0]
    rows[1] = None
    with pytest.raises(DataError, match="row 1 cannot be read"):
        data[1]


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ({"train": [], "test": []}, ArgumentError, "rows is a dict of 'train', 'test'. Give the rows of one of them."),
        (
            "huggan/facades",
            ArgumentError,
            "rows must be a sequence of dicts, got a str. The datasets library makes one: load_dataset(..., "
            "split='train'), without streaming=True.",
        ),
        (
            iter([1]),
            ArgumentError,
            "rows must be a sequence of dicts, got a list_iterator. The datasets library makes one: load_dataset(..., "
            "split='train'), without streaming=True.",
        ),
        ([(1, 2)], ArgumentError, "a row must be a dict with PIL pictures, got (1, 2)."),
        (
            [{"image": 1, "label": 2}],
            ArgumentError,
            "rows has no column 'imageB'. Its columns are 'image', 'label'. Name two of them: source=..., target=... "
            "(--columns).",
        ),
    ],
)
def test_what_is_no_sequence_of_dicts_with_the_columns_is_refused(rows, kind, message):
    assert error_of(kind, rows) == f"PairedImages.from_rows: {message}"


def test_no_rows_and_ids_are_refused():
    assert error_of(DataError, []) == "rows: there are no rows."
    assert error_of(ArgumentError, rows_of(1), labels=3) == (
        "PairedImages.from_rows: labels must be a palette, got 3. Maps of class ids are read from files: "
        "PairedImages(folder, labels=...)."
    )
    assert error_of(ArgumentError, rows_of(1), preprocess="cropp").startswith("PairedImages: preprocess='cropp'")


# The datasets library


@pytest.fixture
def library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


def data_set(datasets, rows):
    features = datasets.Features({name: datasets.Image() for name in COLUMNS})
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in COLUMNS}, features=features)


@pytest.mark.parametrize("how", ["from_dict", "parquet", "save_to_disk"])
def test_a_split_of_the_datasets_library_is_rows(library, tmp_path, how):
    rows = rows_of(4)
    split = data_set(library, rows)
    if how == "parquet":
        split.to_parquet(tmp_path / "pairs" / "train.parquet")
        split = library.load_dataset(str(tmp_path / "pairs"))["train"]
    elif how == "save_to_disk":
        split.save_to_disk(tmp_path / "pairs")
        split = library.load_from_disk(tmp_path / "pairs")
    data, expected = PairedImages.from_rows(split, size=20), PairedImages.from_rows(rows, size=20)
    cache = make_cache(data, torch.device("cpu"))
    cache.fill()  # in threads
    for a, b in zip(cache.batches(2), batches(expected, 2), strict=True):
        assert same(a, b)
    for a, b in zip(batches(data, 2, num_workers=2), batches(expected, 2), strict=True):
        assert same(a, b)


def test_bad_rows_of_the_library_and_its_own_classes_are_named(library):
    encoded = [{name: library.Image().encode_example(row[name]) for name in COLUMNS} for row in rows_of(3)]
    encoded[1]["imageA"] = {"bytes": b"no picture", "path": None}
    encoded[2]["imageB"] = None
    split = data_set(library, encoded)
    assert error_of(DataError, split).startswith("rows, row 1 cannot be read (cannot identify image file")
    with pytest.warns(UserWarning, match="2 of 3 samples are bad") as caught:
        assert PairedImages.from_rows(split, on_bad_image="skip").files == ["row 0"]
    assert "row 2, imageB holds None, not a PIL picture" in str(caught[0].message)
    other = split.rename_column("imageA", "photo")
    assert error_of(ArgumentError, other) == (
        "PairedImages.from_rows: rows has no column 'imageA'. Its columns are 'photo', 'imageB'. Name two of them: "
        "source=..., target=... (--columns)."
    )
    assert "rows is a dict of 'train'" in error_of(ArgumentError, library.DatasetDict(train=split))
    assert "got a IterableDataset." in error_of(ArgumentError, split.to_iterable_dataset())
