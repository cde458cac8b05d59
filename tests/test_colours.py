import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans.colours import (
    COLOUR_SPACES,
    LAB,
    ciede2000,
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
DIFFERENCES = """
    50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
    50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
    50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
    50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
    50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
    50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
    50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
    50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
    50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
    50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
    50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
    50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
    50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
    50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
    50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
    50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
    50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
    50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
    50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
    50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
    50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
    50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
    50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
    50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
    60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
    63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
    61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
    35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
    22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
    36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
    90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
    90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
    6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
    2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""  # Sharma, Wu & Dalal 2005, table 1: two colours in Lab, and CIEDE2000 of them
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


def test_the_colour_difference_is_that_of_the_published_table():
    rows = torch.tensor([[float(x) for x in row.split()] for row in DIFFERENCES.split("\n")[1:-1]], dtype=torch.float64)
    assert rows.shape == (34, 7)
    lab, other = (rows[:, at : at + 3].T[None, :, None] for at in (0, 3))
    expected = rows[:, 6]
    torch.testing.assert_close(ciede2000(lab, other).flatten(), expected, atol=5.1e-5, rtol=0)
    torch.testing.assert_close(ciede2000(other, lab).flatten(), expected, atol=5.1e-5, rtol=0)
    single = ciede2000(lab.float(), other.float()).flatten()
    steady = torch.ones(34, dtype=torch.bool)
    steady[8:15] = False  # opposite hues: single precision may take the other way round
    torch.testing.assert_close(single[steady].double(), expected[steady], atol=1e-3, rtol=0)


def test_equal_colours_have_no_difference_and_all_of_srgb_a_finite_one():
    lab = rgb_to_lab(every_colour())
    assert ciede2000(lab, lab).max() == 0
    found = ciede2000(lab, lab.flip(-1))
    assert found.isfinite().all()
    assert 0 <= found.min() <= found.max() < 120


def test_the_colour_difference_needs_three_channels():
    with pytest.raises(ShapeError, match=r"^ciede2000: expects three channels, \(b, 3, h, w\), got a tensor of shape"):
        ciede2000(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2))
