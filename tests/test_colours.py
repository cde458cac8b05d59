import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans.colours import (
    COLOUR_SPACES,
    LAB,
    colour_space,
    decode_lab,
    encode_lab,
    join_lab,
    lab_to_rgb,
    rgb_to_lab,
    split_lab,
)
from imtrans.errors import ArgumentError, ShapeError

KNOWN = {  # as tables have them, which differ in the fourth digit of the matrix
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.74, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (128, 128, 128): (53.59, 0.0, 0.0),
}
colours = st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=50)


def picture(pixels):
    """Colours in 8 bit as one row of pixels, (1, 3, 1, n)."""
    return torch.tensor(pixels, dtype=torch.float32).T[None, :, None] / 127.5 - 1


def every_colour():
    """Each fifth step of the cube, with its corners."""
    steps = torch.linspace(-1, 1, 52)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"))[None].flatten(3)


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items())
def test_known_colours(rgb, lab):
    np.testing.assert_allclose(rgb_to_lab(picture([rgb])).flatten(), lab, atol=0.03)


@given(colours)
def test_eight_bit_colours_survive_the_round_trip_through_the_network_s_scale(pixels):
    image = picture(pixels)
    encoded = encode_lab(rgb_to_lab(image))
    assert encoded.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(lab_to_rgb(decode_lab(encoded)), image, atol=0.1 / 127.5, rtol=0)


def test_the_whole_cube_survives_and_stays_within_the_stated_ranges():
    image = every_colour()
    lab = rgb_to_lab(image)
    torch.testing.assert_close(lab_to_rgb(lab), image, atol=0.1 / 127.5, rtol=0)
    least, most = lab.amin((0, 2, 3)), lab.amax((0, 2, 3))
    assert (least >= torch.tensor([-1e-4, -87, -108])).all()
    assert (most <= torch.tensor([100.001, 99, 95])).all()


@given(st.integers(0, 255))
def test_grey_has_no_colour_and_lighter_grey_has_more_lightness(level):
    lab = rgb_to_lab(picture([(level,) * 3, (min(level + 1, 255),) * 3]))
    assert lab[:, 1:].abs().max() < 1e-3
    assert lab[0, 0, 0, 1] >= lab[0, 0, 0, 0]


numbers = st.floats(-1.5, 1.5, width=32)


@given(st.floats(-1, 1, width=32), numbers, numbers)
def test_any_colour_keeps_its_lightness_in_and_beyond_the_gamut(lightness, a, b):
    """To 0.001 of 100 in floats; to 0.3 when it is rounded to 8 bit."""
    image = join_lab(*(torch.tensor(v).reshape(1, -1, 1, 1) for v in ([lightness], [a, b])))
    assert image.abs().max() <= 1
    eight_bit = (image * 127.5 + 127.5).round() / 127.5 - 1
    for made, most in ((image, 0.001), (eight_bit, 0.3)):
        assert abs(rgb_to_lab(made)[0, 0, 0, 0] - (lightness + 1) * 50) <= most


def test_beyond_the_gamut_a_colour_fades_no_more_than_it_must():
    lab = torch.tensor([[60.0, 30, 20], [60.0, 90, 60]]).T.reshape(1, 3, 1, 2)
    back = rgb_to_lab(lab_to_rgb(lab))
    torch.testing.assert_close(back[..., 0], lab[..., 0], atol=1e-3, rtol=0)
    assert lab_to_rgb(lab)[..., 1].max() == pytest.approx(1, abs=1e-5)
    faded, asked = back[0, 1:, 0, 1], lab[0, 1:, 0, 1]
    assert 0 < faded.norm() < asked.norm()
    assert torch.cosine_similarity(faded, asked, dim=0) > 0.95


def test_beyond_the_scale_is_clamped():
    decoded = decode_lab(torch.tensor([-3.0, 2.0, -2.0]).reshape(1, 3, 1, 1))
    assert decoded.flatten().tolist() == [0.0, 110.0, -110.0]
    outside, most = (join_lab(torch.zeros(1, 1, 1, 1), torch.full((1, 2, 1, 1), v)) for v in (7.0, 1.0))
    assert torch.equal(outside, most)


@given(colours)
def test_lightness_and_colour_come_apart_and_together(pixels):
    image = picture(pixels)
    lightness, ab = split_lab(image)
    assert (lightness.shape[1], ab.shape[1]) == (1, 2)
    assert torch.equal(torch.cat([lightness, ab], dim=1), encode_lab(rgb_to_lab(image)))
    assert torch.equal(((join_lab(lightness, ab) + 1) * 127.5).round(), ((image + 1) * 127.5).round())


@pytest.mark.slow
def test_every_colour_of_8_bit_survives():
    level = torch.arange(256) / 127.5 - 1
    plane = torch.stack(torch.meshgrid(level, level, indexing="ij"))
    for red in level:
        image = torch.cat([red.expand(1, 256, 256), plane])[None]
        torch.testing.assert_close(join_lab(*split_lab(image)), image, atol=0.1 / 127.5, rtol=0)


def test_colours_of_another_dtype_come_to_the_lightness():
    lightness, ab = torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2, 2), 0.25)
    assert torch.equal(join_lab(lightness, ab.bfloat16()), join_lab(lightness, ab))
    assert join_lab(lightness.double(), ab).dtype == torch.float64


@pytest.mark.parametrize("function", [rgb_to_lab, lab_to_rgb])
def test_gradients_are_right(function):
    inside = rgb_to_lab(torch.rand(1, 3, 2, 3, dtype=torch.float64) * 1.6 - 0.8)
    image = (inside if function is lab_to_rgb else lab_to_rgb(inside)).requires_grad_()
    assert torch.autograd.gradcheck(function, image)


@pytest.mark.parametrize("function", [rgb_to_lab, lab_to_rgb])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_gradients_of_black_and_white_are_finite(function, value):
    image = torch.full((1, 3, 2, 2), value, requires_grad=True)
    function(image).sum().backward()
    assert image.grad.isfinite().all()


def test_half_precision_and_autocast_lose_nothing():
    image = picture([(3, 200, 77)]).bfloat16()
    exact = rgb_to_lab(image.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rgb_to_lab(image), exact)


@pytest.mark.parametrize("function", [rgb_to_lab, lab_to_rgb])
def test_what_is_no_picture_is_refused(function):
    owner = function.__name__
    shape = re.escape(f"{owner}: expects three channels, (b, 3, h, w), got a tensor of shape (1, 1, 4, 4).")
    with pytest.raises(ShapeError, match=shape):
        function(torch.zeros(1, 1, 4, 4))
    kind = re.escape(f"{owner}: expects floats, got torch.uint8. For uint8 pixels: x.float() / 127.5 - 1.")
    with pytest.raises(ArgumentError, match=kind):
        function(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("space", COLOUR_SPACES.values(), ids=lambda space: space.name)
def test_a_colour_space_takes_images_apart_and_joins_them(space):
    image = torch.rand(2, space.channels[-1], 4, 5) * 2 - 1
    source, target = space.split(image)
    assert (source.shape[1], target.shape[1]) == (len(space.source), len(space.target))
    torch.testing.assert_close(space.join(source, target), image[:, :3], atol=1e-3, rtol=0)


def test_the_colour_space_of_a_network_is_what_its_colours_name():
    network = torch.nn.Identity()
    assert colour_space(network) is None
    for name, expected in {"lab": LAB, "rgb": None, 3: None, ("lab",): None}.items():
        network.colours = name
        assert colour_space(network) is expected
