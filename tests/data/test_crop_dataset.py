from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imtrans.data.crop_dataset import Jitter
from imtrans.data.images import resized, to_float, to_image, to_tensor
from imtrans.errors import ArgumentError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jittered(jitter, images, rng):
    """The same random crop of each image; without `rng`, the images resized to the size of a crop."""
    if rng is None:
        return [to_float(resized(image, jitter.size)) for image in images]
    params = torch.tensor([jitter.random_crop(rng)])
    return [jitter.crop(resized(image, jitter.loaded_size)[None], params)[0] for image in images]


def pixels(image):
    return np.asarray(image).tolist()


@given(seed=st.integers(0, 2**16), size=st.integers(1, 12), more=st.integers(0, 5), flip=st.booleans())
def test_both_pictures_of_a_pair_get_the_same_window_and_flip(seed, size, more, flip):
    jitter = Jitter(size, size + more, flip)
    picture = noise(size + more, size + more, seed)
    one, inverse = (Image.fromarray(p) for p in (picture, 255 - picture))
    a, b = jittered(jitter, [one, inverse], np.random.default_rng(seed))
    assert a.shape == b.shape == (3, size, size)
    torch.testing.assert_close(a, -b, atol=1e-6, rtol=0)
    again, _ = jittered(jitter, [one, inverse], np.random.default_rng(seed))
    assert torch.equal(a, again)


def windows(jitter, draws):
    """Of each draw: left and top of the window, and whether it is mirrored, read from the pixels."""
    side = jitter.loaded_size
    rows, columns = np.mgrid[:side, :side].astype(np.uint8)
    image = Image.fromarray(np.stack([rows, columns, np.zeros_like(rows)], axis=2))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        cut = np.asarray(to_image(jittered(jitter, [image], rng)[0]))
        mirrored = bool(cut[0, 0, 1] > cut[0, -1, 1])
        found.append((int(cut[..., 1].min()), int(cut[0, 0, 0]), mirrored))
    return found


def test_every_window_is_reached_and_half_of_them_are_mirrored():
    found = windows(Jitter(4, 7), draws=1000)
    assert set(found) == {(x, y, m) for x in range(4) for y in range(4) for m in (False, True)}
    mirrored = Counter(m for _, _, m in found)[True]
    assert 420 < mirrored < 580  # five standard deviations around 500


def test_without_flip_nothing_is_mirrored():
    assert {m for _, _, m in windows(Jitter(4, 6, flip=False), draws=100)} == {False}


def test_a_load_size_equal_to_the_size_only_flips():
    assert set(windows(Jitter(6, 6), draws=50)) == {(0, 0, False), (0, 0, True)}


def test_without_a_generator_pictures_are_only_resized():
    picture = Image.fromarray(noise(6, 6))
    (same,) = jittered(Jitter(6, 9), [picture], None)
    assert torch.equal(same, to_tensor(picture))
    (smaller,) = jittered(Jitter(3), [picture], None)
    assert torch.equal(smaller, to_tensor(picture.resize((3, 3), Image.Resampling.BICUBIC)))


def test_pictures_of_any_size_are_resized_before_the_cut():
    wide = Image.fromarray(np.full((5, 40, 3), 77, dtype=np.uint8))
    (cut,) = jittered(Jitter(8, 10), [wide], np.random.default_rng(0))
    assert cut.shape == (3, 8, 8)
    assert {tuple(p) for row in pixels(to_image(cut)) for p in row} == {(77, 77, 77)}


@pytest.mark.parametrize(("size", "large"), [(256, 286), (128, 143), (64, 72), (1, 1)])
def test_the_load_size_keeps_the_proportion_of_the_paper(size, large):
    assert Jitter(size).loaded_size == large


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0,), "Jitter: size must be a whole number >= 1, got 0."),
        ((2.5,), "Jitter: size must be a whole number >= 1, got 2.5."),
        ((8, 7), "Jitter: load_size must be a whole number >= 8, got 7."),
        ((8, 0), "Jitter: load_size must be a whole number >= 8, got 0."),
    ],
)
def test_jitter_refuses_sizes_that_cannot_be(arguments, text):
    with pytest.raises(ArgumentError) as caught:
        Jitter(*arguments)
    assert str(caught.value) == text
