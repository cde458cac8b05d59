"""What all procedural data sets share, and the drawings of towns, streets and nights."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imtrans import NightFacades, ProceduralTowns
from imtrans.data.cityscapes import LABEL_IDS
from imtrans.data.facades.plan import LABELS, draw_day_and_night, draw_facade
from imtrans.data.images import to_uint8
from imtrans.data.streets import EGO_VEHICLE, draw_street
from imtrans.data.towns import MAP, draw_town
from imtrans.errors import ArgumentError

DRAWINGS = {"draw_town": draw_town, "draw_street": draw_street, "draw_day_and_night": draw_day_and_night}
DATASETS = (ProceduralTowns, NightFacades)


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in ("source", "target"))


def shown_as(name, chart):
    """The pixels of a map that have exactly the colour of a class."""
    return (chart == MAP[name]).all(-1)


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


# Data sets


@pytest.mark.parametrize("cls", DATASETS)
@pytest.mark.parametrize("augment", [True, False])
def test_samples_are_pairs_in_the_range(cls, augment):
    sample = cls(2, size=33, augment=augment)[1]
    assert list(sample) == ["source", "target"]
    for image in sample.values():
        assert image.shape == (3, 33, 33)
        assert image.dtype == torch.float32
        assert -1 <= image.min() < image.max() <= 1


@pytest.mark.parametrize(("cls", "draw"), [(ProceduralTowns, draw_town), (NightFacades, draw_day_and_night)])
def test_a_is_the_source_from_a_to_b(cls, draw):
    a, b = (to_uint8(Image.fromarray(picture)) / 127.5 - 1 for picture in draw(3, 1, 32))
    for direction, source, target in (("AtoB", a, b), ("BtoA", b, a)):
        sample = cls(2, size=32, seed=3, augment=False, direction=direction)[1]
        torch.testing.assert_close(sample, {"source": source, "target": target})


@pytest.mark.parametrize("cls", DATASETS)
def test_samples_are_functions_of_seed_epoch_and_index(cls):
    data, other = cls(2, size=32, seed=4), cls(2, size=32, seed=4)
    other.draw(0, 3)
    assert equal(data.draw(1, 5), other.draw(1, 5))
    assert not equal(data.draw(1, 5), data.draw(1, 6))
    assert not equal(data.draw(1, 5), cls(2, size=32, seed=5).draw(1, 5))


def test_source_and_target_are_cropped_alike():
    towns = ProceduralTowns(1, size=32)
    whole = towns.load(0)
    for epoch in range(6):
        left, top, mirrored = towns.crop_params(0, epoch)[0][1:]
        for name, crop in towns.draw(0, epoch).items():
            cut = whole[name][:, top : top + 32, left : left + 32] / 127.5 - 1
            torch.testing.assert_close(crop, cut.flip(-1) if mirrored else cut)


@pytest.mark.parametrize(
    ("cls", "shown"), [(ProceduralTowns, ("aerial pictures", "maps")), (NightFacades, ("day", "night"))]
)
def test_repr_tells_the_direction(cls, shown):
    subject = "towns" if cls is ProceduralTowns else "facades"
    assert repr(cls(7, size=16, seed=2, augment=False)) == (
        f"7 procedural {subject} of seed 2, {shown[0]} to {shown[1]}, resized to 16x16"
    )
    assert f", {shown[1]} to {shown[0]}, as Jitter(" in repr(cls(7, size=16, direction="BtoA"))


@pytest.mark.parametrize("cls", DATASETS)
def test_an_index_outside(cls):
    with pytest.raises(IndexError, match=f"{cls.__name__} has 1 sample, no index 1"):
        cls(1, size=16)[1]


@pytest.mark.parametrize("cls", DATASETS)
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"length": 0}, "length must be a whole number >= 1, got 0."),
        ({"size": 15}, "size must be a whole number >= 16, got 15."),
        ({"size": (32, 64)}, "size must be a whole number >= 16, got (32, 64)."),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1."),
        ({"direction": "AtoA"}, "direction='AtoA' is not one of ['AtoB', 'BtoA']. Did you mean 'BtoA'?"),
    ],
)
def test_arguments_are_checked(cls, settings, text):
    with pytest.raises(ArgumentError) as caught:
        cls(**{"length": 1, **settings})
    assert str(caught.value) == f"{cls.__name__}: {text}"


# Drawings


@pytest.mark.parametrize("name", DRAWINGS)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**40), size=st.integers(16, 100))
@settings(max_examples=8)
def test_a_drawing_is_a_function_of_its_arguments_alone(name, seed, index, size):
    draw = DRAWINGS[name]
    first = draw(seed, index, size)
    before = np.random.get_state()[1].copy()
    draw(seed + 1, index, size)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    for one, other in zip(first, draw(seed, index, size), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.uint8
        assert one.shape[0] == size
    assert first[0].std() > 15


def test_another_process_draws_the_same_bytes():
    code = (
        "from imtrans.data.facades.plan import draw_day_and_night\nfrom imtrans.data.streets import draw_street\n"
        "from imtrans.data.towns import draw_town\nfrom zlib import crc32\n"
        "print([crc32(a.tobytes()) for draw in (draw_town, draw_street, draw_day_and_night) for a in draw(5, 1, 48)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    scope = {}
    exec(code.replace("print(", "found = ("), scope)
    assert done.stdout.strip() == str(scope["found"])


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("index", range(3))
def test_a_drawing_is_the_same_at_every_size(name, index):
    small, large = (DRAWINGS[name](3, index, size)[0].astype(float) for size in (64, 192))
    shrunk = large.reshape(64, 3, -1, 3, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 8 < 12 < np.abs(shrunk[:, ::-1] - small).mean()


@pytest.mark.parametrize("name", DRAWINGS)
def test_other_indexes_and_seeds_are_other_drawings(name):
    assert len({DRAWINGS[name](seed, index, 16)[0].tobytes() for seed in range(3) for index in range(4)}) == 12


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize(("argument", "value", "least"), [("seed", -1, 0), ("index", True, 0), ("size", 15, 16)])
def test_a_wrong_argument_is_named_with_what_is_allowed(name, argument, value, least):
    shown = "height" if (name, argument) == ("draw_street", "size") else argument
    with pytest.raises(ArgumentError) as caught:
        DRAWINGS[name](*{"seed": 0, "index": 0, "size": 32, argument: value}.values())
    assert str(caught.value) == f"{name}: {shown} must be a whole number >= {least}, got {value!r}."


# Towns


def test_all_classes_occur_in_a_few_maps_and_fill_them():
    charts = np.stack([draw_town(0, index, 256)[1] for index in range(4)])
    for name in MAP:
        assert shown_as(name, charts).any(), name
    assert sum(shown_as(name, charts).mean() for name in MAP) > 0.6, "the other pixels are mixed at borders"


@pytest.mark.parametrize("index", range(8))
def test_every_town_has_streets_an_avenue_and_buildings(index):
    chart = draw_town(7, index, 128)[1]
    for name, least in {"street": 0.05, "avenue": 0.03, "building": 0.05, "land": 0.1}.items():
        assert shown_as(name, chart).mean() > least, name


@pytest.mark.parametrize("index", range(8))
def test_aerial_picture_and_map_show_one_plan(index):
    aerial, chart = draw_town(2, index, 128)
    aerial = aerial.astype(float)
    means = {name: aerial[shown_as(name, chart)].mean(0) for name in MAP if shown_as(name, chart).sum() > 60}
    if "water" in means:
        assert means["water"][2] > means["water"][0] + 8
    if "park" in means:
        assert means["park"][1] > max(means["park"][0], means["park"][2]) + 15
    assert np.ptp(means["avenue"] / means["street"]) < 0.12, "both are asphalt"

    def spread(chart):
        regions = [aerial[shown_as(name, chart)] for name in ("street", "avenue", "building", "park", "water")]
        return sum(((r - r.mean(0)) ** 2).sum() for r in regions if len(r)) / sum(map(len, regions))

    assert all(spread(chart) < 0.93 * spread(np.roll(chart, 12, axis)) for axis in (0, 1))
    assert spread(chart) < 0.93 * spread(chart[:, ::-1])


# Streets


def test_streets_have_the_ids_of_cityscapes():
    scenes = [draw_street(0, index, 96) for index in range(30)]
    assert scenes[0][0].shape == (96, 192, 3)
    assert scenes[0][1].shape == (96, 192)
    found = set(np.unique([ids for _, ids in scenes]).tolist())
    rare = {LABEL_IDS[name] for name in ("train", "motorcycle")}
    assert found == {EGO_VEHICLE, *LABEL_IDS.values()} - rare


@pytest.mark.parametrize("index", range(6))
def test_a_street_is_a_scene(index):
    picture, ids = draw_street(1, index, 96)
    share = {name: (ids == number).mean() for name, number in LABEL_IDS.items()}
    assert share["road"] > 0.2
    assert share["building"] > 0.05
    assert min(share["sky"], share["sidewalk"]) > 0.01
    assert (ids[-1, 80:112] == EGO_VEHICLE).all()
    assert (ids[66, 90:102] == LABEL_IDS["road"]).mean() > 0.5
    means = {name: picture[ids == LABEL_IDS[name]].mean() for name in ("road", "sky")}
    assert means["sky"] > means["road"] + 20


# Nights


@pytest.mark.parametrize("index", range(6))
def test_a_night_shows_the_building_of_the_day(index):
    day, night = draw_day_and_night(4, index, 96)
    photo, labels = draw_facade(4, index, 96)
    panes = (labels == LABELS["window"]).all(-1) | (labels == LABELS["door"]).all(-1)
    assert (day == photo).all(-1)[~panes].mean() > 0.9, "only lamps and curtains are new"
    assert not (day == photo).all()
    share = {name: (night / day.clip(1))[(labels == LABELS[name]).all(-1)].mean() for name in ("sky", "wall", "roof")}
    assert max(share.values()) < 0.7, "all is darker but for the lights"
    outlines = [np.abs(np.diff(each.mean(-1), axis=1)) for each in (day, night)]
    assert correlation(*outlines) > 0.3
    assert correlation(*outlines) > correlation(outlines[0], np.roll(outlines[1], 3, axis=1)) + 0.1


def test_windows_and_shops_shine_at_night_and_walls_do_not():
    pairs = [(draw_day_and_night(4, i, 96)[1].astype(int), draw_facade(4, i, 96)[1]) for i in range(8)]
    nights, labels = (np.stack(each) for each in zip(*pairs, strict=True))
    warm = (nights[..., 0] > 150) & (nights[..., 0] > nights[..., 2] + 40)
    share = {name: warm[(labels == LABELS[name]).all(-1)].mean() for name in ("window", "shop", "wall", "sky", "roof")}
    assert share["window"] > 0.1
    assert share["shop"] > 0.1
    assert max(share[name] for name in ("wall", "sky", "roof")) < 0.05
