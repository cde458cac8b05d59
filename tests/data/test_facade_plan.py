import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imtrans.data.facades.plan import LABELS, draw_facade
from imtrans.errors import ArgumentError

PALETTE = np.array(list(LABELS.values()), np.uint8)


def of(name, labels):
    """The pixels that carry the label `name`."""
    return (labels == LABELS[name]).all(-1)


@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**40), size=st.integers(16, 150))
@settings(max_examples=25)
def test_every_size_gives_a_picture_and_labels_of_the_palette_only(seed, index, size):
    photo, labels = draw_facade(seed, index, size)
    for picture in (photo, labels):
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
    assert (labels[:, :, None] == PALETTE).all(-1).any(-1).all()
    assert photo.std() > 15


def test_the_palette_is_that_of_cmp_facades():
    assert LABELS == {
        "unknown": (0, 0, 0),
        "door": (0, 170, 255),
        "shop": (170, 0, 0),
        "balcony": (170, 255, 85),
        "window": (0, 85, 255),
        "wall": (0, 0, 255),
        "sky": (0, 0, 170),
        "roof": (255, 85, 0),
    }


@given(seed=st.integers(0, 99), index=st.integers(0, 999))
@settings(max_examples=10)
def test_a_facade_is_a_function_of_its_arguments_alone(seed, index):
    first = draw_facade(seed, index, 48)
    draw_facade(seed + 1, index, 48)
    np.random.default_rng(0).random()
    for a, b in zip(first, draw_facade(seed, index, 48), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_process_draws_the_same_bytes():
    code = (
        "from imtrans.data.facades.plan import draw_facade; from zlib import crc32\n"
        "print([crc32(a.tobytes()) for i in range(4) for a in draw_facade(5, i, 64)])"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()
    draw_facade(0, 0, 32)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@given(index=st.integers(0, 10**6))
@settings(max_examples=15)
def test_the_building_is_the_same_at_every_size(index):
    (small_photo, small), (large_photo, large) = (draw_facade(3, index, size) for size in (64, 192))
    assert (small == large[1::3, 1::3]).all(-1).mean() > 0.97
    shrunk = large_photo.reshape(64, 3, 64, 3, 3).mean((1, 3))
    assert np.abs(shrunk - small_photo).mean() < 12


def test_other_indexes_and_seeds_are_other_buildings():
    layouts = {draw_facade(seed, index, 32)[1].tobytes() for seed in range(3) for index in range(12)}
    assert len(layouts) == 36


@pytest.mark.parametrize("index", range(12))
def test_every_facade_has_sky_roof_walls_windows_and_a_door(index):
    labels = draw_facade(11, index, 96)[1]
    for name, least in {"sky": 0.04, "roof": 0.01, "wall": 0.25, "window": 0.04, "door": 0.004}.items():
        assert of(name, labels).mean() > least, name


def test_all_labels_occur_in_a_few_facades():
    labels = np.stack([draw_facade(0, index, 32)[1] for index in range(16)])
    for name in LABELS:
        assert of(name, labels).any(), name


@pytest.mark.parametrize("index", range(12))
def test_photo_and_labels_correspond(index):
    """Labels say something of colour and of texture: within one building the regions differ."""
    photo, labels = draw_facade(7, index, 96)
    photo = photo.astype(np.float64)
    mean = {name: photo[of(name, labels)].mean(0) for name in ("sky", "wall", "window")}
    assert np.abs(mean["sky"] - mean["wall"]).max() > 10
    assert np.abs(mean["window"] - mean["wall"]).max() > 10
    assert photo[of("window", labels)].std() > photo[of("sky", labels)].std() * 0.8
    for name in ("sky", "wall"):
        assert photo[of(name, labels)].std(0).max() > 1, f"{name} is flat"


@pytest.mark.parametrize(
    ("argument", "value", "minimum"),
    [("seed", -1, 0), ("index", -3, 0), ("index", True, 0), ("size", 15, 16), ("size", 64.0, 16)],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(argument, value, minimum):
    message = f"draw_facade: {argument} must be a whole number >= {minimum}, got {value!r}."
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        draw_facade(**{"seed": 0, "index": 0, "size": 32, argument: value})
