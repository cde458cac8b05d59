"""The official folders of Cityscapes, with small files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imtrans import CityscapesImages, PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator, load_pretrained, translate
from imtrans.data.cityscapes import LABEL_IDS, TRAIN_PALETTE
from imtrans.data.loader import batches
from imtrans.data.streets import draw_street, save_streets
from imtrans.errors import ArgumentError, DataError

# The train ids by label id, as the benchmark publishes them; all others are ignored.
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
NAMES = {
    "leftImg8bit": "leftImg8bit/{split}/{city}/{city}_{n:06d}_000019_leftImg8bit.png",
    "gtFine": "gtFine/{split}/{city}/{city}_{n:06d}_000019_gtFine_labelIds.png",
}


def write(root, city, n, split="train", ids=None, photo=None):
    """A pair of 16x34 pixels, with a column for each id."""
    ids = np.tile(np.arange(34, dtype=np.uint8), (16, 1)) if ids is None else ids
    photo = np.stack([ids * 7, ids * 0 + n, 255 - ids * 7], -1).astype(np.uint8) if photo is None else photo
    for kind, pixels in {"leftImg8bit": photo, "gtFine": ids}.items():
        path = root / NAMES[kind].format(split=split, city=city, n=n)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    for other in ("color", "instanceIds", "labelTrainIds"):  # which are in the folders, too
        Image.new("L", (34, 16)).save(
            root / NAMES["gtFine"].format(split=split, city=city, n=n).replace("labelIds", other)
        )


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "ulm", 1)
    write(tmp_path, "aachen", 2)
    write(tmp_path, "aachen", 0)
    write(tmp_path, "lindau", 3, split="val")
    return tmp_path


def test_label_ids_become_the_train_ids_of_the_benchmark(root):
    data = CityscapesImages(root, size=(16, 34), augment=False)
    source, target = data[0]["source"], data[0]["target"]
    assert source.shape == (20, 16, 34)
    assert target.shape == (3, 16, 34)
    assert set(source.unique().tolist()) == {0.0, 1.0}
    assert (source.sum(0) == 1).all()
    for row in source.argmax(0).tolist():
        assert row == [TRAIN_IDS.get(label, 19) for label in range(34)]
    assert [*LABEL_IDS.values()] == [*TRAIN_IDS]
    assert len(set(TRAIN_PALETTE.values())) == 20


def test_photos_and_labels_of_all_cities_in_the_order_of_their_names(root):
    data = CityscapesImages(root, size=(16, 34), augment=False)
    assert data.files == [f"{name}_000019_leftImg8bit.png" for name in ("aachen_000000", "aachen_000002", "ulm_000001")]
    assert [round((data[i]["target"][1, 0, 0].item() + 1) * 127.5) for i in range(3)] == [0, 2, 1]
    assert data.channels == {"source": 20, "target": 3}
    assert repr(data) == (
        f"3 pairs in leftImg8bit/train and gtFine/train in {root}, 34x16 pixels, source of 20 labels, BtoA, "
        "resized to 34x16"
    )
    assert CityscapesImages(root, "val", augment=False).files == ["lindau_000003_000019_leftImg8bit.png"]


def test_augmentation_keeps_photo_and_labels_together(root):
    data = CityscapesImages(root, size=(12, 20), load_size=(16, 34), seed=3)
    crops = set()
    for epoch in range(10):
        sample = data.draw(0, epoch)
        label = ((sample["target"][0] + 1) * 127.5 / 7).round().long()
        expected = torch.tensor([TRAIN_IDS.get(each, 19) for each in range(34)])[label]
        assert torch.equal(sample["source"].argmax(0), expected)
        crops.add(tuple(label[0].tolist()))
    assert len(crops) > 5
    assert any(crop[0] > crop[-1] for crop in crops), "one is mirrored"


def test_the_default_size_is_half_as_high_as_wide(root):
    assert CityscapesImages(root)[0]["target"].shape == (3, 256, 512)


@pytest.mark.parametrize("kind", NAMES)
def test_a_file_without_partner(root, kind, monkeypatch):
    monkeypatch.chdir(root)
    paths = {each: name.format(split="train", city="ulm", n=1) for each, name in NAMES.items()}
    Path(paths.pop(kind)).unlink()
    (partner,) = paths.values()
    with pytest.raises(DataError) as caught:
        CityscapesImages(".")
    assert str(caught.value) == (
        "1 of the files in leftImg8bit/train and gtFine/train have no partner of the same name: "
        f"{partner}. Add the missing ones, or take these out. To train without such files: "
        'on_bad_image="skip" (--on-bad-image skip).'
    )
    with pytest.warns(UserWarning, match="1 of 3 samples is bad and left out"):
        assert len(CityscapesImages(".", on_bad_image="skip")) == 2


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(DataError) as caught:
        CityscapesImages(tmp_path, "val")
    assert str(caught.value) == (
        f"{tmp_path} has no files leftImg8bit/val/CITY/*_leftImg8bit.png. Unpack leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip of Cityscapes there."
    )


def test_other_ids_are_refused(root):
    write(root, "ulm", 5, ids=np.full((16, 34), 34, np.uint8))
    with pytest.raises(DataError, match=r"ulm_000005_000019_gtFine_labelIds\.png has ids 34, and labels=34 takes 0 to"):
        CityscapesImages(root)[3]


def test_arguments_are_checked(root):
    with pytest.raises(ArgumentError, match="seed must be a whole number >= 0"):
        CityscapesImages(root, seed=-1)


def test_streets_in_the_official_folders(tmp_path):
    save_streets(tmp_path, 2, height=32, seed=6)
    save_streets(tmp_path, 1, split="val", height=32, seed=7)
    data = CityscapesImages(tmp_path, size=(32, 64), augment=False)
    assert len(data) == 2
    for index, batch in enumerate(batches(data, 1)):
        picture, ids = draw_street(6, index, 32)
        assert torch.equal(
            ((batch["target"][0] + 1) * 127.5).round().byte(), torch.from_numpy(picture).permute(2, 0, 1)
        )
        expected = [[TRAIN_IDS.get(each, 19) for each in row] for row in ids.tolist()]
        assert batch["source"][0].argmax(0).tolist() == expected
    assert len(CityscapesImages(tmp_path, "val")) == 1
    with pytest.raises(ArgumentError, match="save_streets: count must be a whole number >= 1, got 0"):
        save_streets(tmp_path, 0)


def test_a_trained_generator_takes_a_painted_label_map(root, tmp_path):
    data = CityscapesImages(root, size=(16, 32))
    method = Pix2Pix(
        UNetGenerator(20, 3, base_channels=4, depth=4), PatchDiscriminator(23, base_channels=4, n_layers=1)
    )
    out = tmp_path / "run"
    Trainer(method, data, out=out, max_steps=2, device="cpu").fit()
    generator = load_pretrained(out / "generator")
    assert generator.palette == tuple(TRAIN_PALETTE.values())
    painted = Image.new("RGB", (32, 16), TRAIN_PALETTE["road"])
    one_hot = torch.zeros(20, 16, 32)
    one_hot[0] = 1
    expected = translate(generator, one_hot)
    made = torch.from_numpy(np.array(translate(generator, painted))).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(made, expected, atol=0.005, rtol=0)
