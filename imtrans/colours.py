"""CIE Lab, the colour spaces that networks work in, and the palettes of label maps.

The conversions are our own: kornia clips colours outside sRGB by channel, which changes their lightness.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from imtrans.checks import one_of
from imtrans.errors import ArgumentError, ShapeError, join_names, short_repr

Matrix = Sequence[Sequence[float]]
Colour = tuple[int, int, int]
Palette = Collection[Colour]
"""A colour for each class, in the order of the ids: red, green and blue from 0 to 255."""

CMP_PALETTE: dict[str, Colour] = {
    "background": (0, 0, 170),
    "facade": (0, 0, 255),
    "window": (0, 85, 255),
    "door": (0, 170, 255),
    "cornice": (0, 255, 255),
    "sill": (85, 255, 170),
    "balcony": (170, 255, 85),
    "blind": (255, 255, 0),
    "deco": (255, 170, 0),
    "molding": (255, 85, 0),
    "pillar": (255, 0, 0),
    "shop": (170, 0, 0),
}
"""The twelve classes of the CMP facade database (Tyleček and Šára 2013), in the colours of its label maps."""

CITYSCAPES_PALETTE: dict[str, Colour] = {
    "unlabeled": (0, 0, 0),
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
"""The classes of Cityscapes (Cordts et al. 2016) that differ in colour: the label maps paint the others black."""

PALETTES = {"facades": CMP_PALETTE, "cmp": CMP_PALETTE, "cityscapes": CITYSCAPES_PALETTE}

# Linear sRGB to XYZ, IEC 61966-2-1; the row sums are the white point, D65.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _TO_XYZ.sum(axis=1, keepdims=True)
_FROM_RGB: Matrix = (_TO_XYZ / _WHITE).tolist()
_TO_RGB: Matrix = np.linalg.inv(_TO_XYZ / _WHITE).tolist()
_CORNER = 6 / 29  # below it, CIE replaces the cube root by a line
_AB = 110.0  # in sRGB, |a| and |b| are at most 108


def rgb_to_lab(image: Tensor) -> Tensor:
    """Convert sRGB images to CIE Lab, white point D65.

    Shape: ``(b, 3, h, w)`` in [-1, 1] -> ``(b, 3, h, w)``: L in [0, 100], a in [-87, 99], b in [-108, 95]. Half
    precision is converted to float32, because 8-bit colours need it.

    Raises:
        ShapeError: not three channels.
        ArgumentError: not a floating-point tensor.

    Source: IEC 61966-2-1 (sRGB), CIE 15 (Lab).

    >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).flatten().round(decimals=2).abs()
    tensor([100.,   0.,   0.])
    """
    unit = (_checked("rgb_to_lab", image) + 1) / 2
    bent = ((unit.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    xyz = _mixed(torch.where(unit > 0.04045, bent, unit / 12.92), _FROM_RGB)
    # The clamp keeps the gradient of the unused branch finite.
    root = xyz.clamp_min(_CORNER**3) ** (1 / 3)
    x, y, z = torch.where(xyz > _CORNER**3, root, xyz / (3 * _CORNER**2) + 4 / 29).unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE Lab to sRGB images, the inverse of `rgb_to_lab`, with the same errors.

    A colour outside sRGB is mixed with the grey of its luminance, just enough to be inside. Its lightness stays.

    Shape: ``(b, 3, h, w)``, L in [0, 100] -> ``(b, 3, h, w)`` in [-1, 1].
    """
    lightness, a, b = _checked("lab_to_rgb", lab).unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], dim=-3)
    xyz = torch.where(roots > _CORNER, roots**3, 3 * _CORNER**2 * (roots - 4 / 29))
    linear = _faded(_mixed(xyz, _TO_RGB), xyz[..., 1:2, :, :].clamp(0, 1))
    bent = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return (torch.where(linear > 0.0031308, bent, 12.92 * linear) * 2 - 1).clamp(-1, 1)


def luminance(rgb: Tensor) -> Tensor:
    """Return 0.299 red + 0.587 green + 0.114 blue, as Pillow converts RGB to grey.

    Shape: ``(b, 3, h, w) -> (b, 1, h, w)``.

    Source: ITU-R BT.601.
    """
    red, green, blue = rgb.split(1, dim=-3)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def ciede2000(lab: Tensor, other: Tensor) -> Tensor:
    """Return the colour difference CIEDE2000 of each pixel: about 1 is just noticeable, black and white differ by 100.

    Shape: two tensors ``(b, 3, h, w)`` in CIE Lab -> ``(b, h, w)``. Errors as for `rgb_to_lab`.

    Source: Sharma, Wu & Dalal 2005, "The CIEDE2000 Color-Difference Formula", equations 2 to 22.

    >>> ciede2000(torch.zeros(1, 3, 1, 1), torch.tensor([100.0, 0, 0]).reshape(1, 3, 1, 1))
    tensor([[[100.]]])
    """
    (l1, a1, b1), (l2, a2, b2) = (_checked("ciede2000", each).unbind(-3) for each in (lab, other))
    mean_chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    stretch = 1 + (1 - _saturation(mean_chroma)) / 2
    chroma1, chroma2 = torch.hypot(stretch * a1, b1), torch.hypot(stretch * a2, b2)
    hue1, hue2 = (torch.rad2deg(torch.atan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey, apart = chroma1 * chroma2 == 0, hue2 - hue1
    # The short way round the circle, and the hue in its middle; a grey has no hue, and the other one counts.
    turn = torch.where(apart.abs() <= 180, 0.0, -360 * apart.sign())
    middle = torch.where(grey, hue1 + hue2, (hue1 + hue2 - turn.abs()) / 2 % 360)
    lightness, chroma = l2 - l1, chroma2 - chroma1
    hue = 2 * (chroma1 * chroma2).sqrt() * torch.sin(torch.deg2rad(apart + turn) / 2)

    mean_chroma, offset = (chroma1 + chroma2) / 2, ((l1 + l2) / 2 - 50).square()
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    ripple = 1 + sum(size * torch.cos(torch.deg2rad(times * middle + phase)) for size, times, phase in waves)
    lightness = lightness / (1 + 0.015 * offset / (20 + offset).sqrt())
    chroma = chroma / (1 + 0.045 * mean_chroma)
    hue = hue / (1 + 0.015 * mean_chroma * ripple)
    blue = torch.deg2rad(60 * torch.exp(-((middle - 275) / 25).square()))
    rotation = -2 * _saturation(mean_chroma) * torch.sin(blue)
    # The rotation can make a sum of 0 slightly negative.
    return (lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue).clamp_min(0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()


def encode_lab(lab: Tensor) -> Tensor:
    """Scale Lab for a network: L / 50 - 1, a / 110 and b / 110.

    Shape: ``(b, 3, h, w)`` -> ``(b, 3, h, w)``, in [-1, 1] for all colours of sRGB.

    Source: Isola et al. 2017, section 6.2 (colorization), and their code.
    """
    lightness, a, b = lab.unbind(-3)
    return torch.stack([lightness / 50 - 1, a / _AB, b / _AB], dim=-3)


def decode_lab(encoded: Tensor) -> Tensor:
    """Invert `encode_lab`; values outside [-1, 1] are clamped first.

    Shape: ``(b, 3, h, w)`` -> ``(b, 3, h, w)``, L in [0, 100], a and b in [-110, 110].
    """
    lightness, a, b = encoded.clamp(-1, 1).unbind(-3)
    return torch.stack([(lightness + 1) * 50, a * _AB, b * _AB], dim=-3)


def split_lab(image: Tensor) -> tuple[Tensor, Tensor]:
    """Split sRGB images into lightness and colour, scaled as by `encode_lab`.

    Shape: ``(b, 3, h, w)`` in [-1, 1] -> ``(b, 1, h, w)`` and ``(b, 2, h, w)`` in [-1, 1]. Errors as for `rgb_to_lab`.
    """
    lightness, ab = encode_lab(rgb_to_lab(image)).split([1, 2], dim=-3)
    return lightness.contiguous(), ab.contiguous()


def join_lab(lightness: Tensor, ab: Tensor) -> Tensor:
    """Invert `split_lab`. The image has the given lightness for any `ab`, and is on its device.

    Shape: ``(b, 1, h, w)`` and ``(b, 2, h, w)`` -> ``(b, 3, h, w)`` in [-1, 1].

    >>> join_lab(torch.ones(1, 1, 1, 1), torch.rand(1, 2, 1, 1)).flatten().round(decimals=3)
    tensor([1., 1., 1.])
    """
    return lab_to_rgb(decode_lab(torch.cat([lightness, ab.to(lightness)], dim=-3)))


def split_holes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Split RGBA images with transparent holes into the source for a network that fills them, and RGB.

    A pixel is in a hole if its alpha is 0 or less. In the source, holes are 0 in RGB and -1 in alpha, and alpha is 1
    elsewhere: it does not depend on the colours that a file has where it is transparent.

    Shape: ``(b, 4, h, w)`` in [-1, 1] -> ``(b, 4, h, w)`` and ``(b, 3, h, w)``.
    """
    rgb, alpha = image.split([3, 1], dim=-3)
    known = alpha > 0
    return torch.cat([rgb.where(known, 0.0), torch.where(known, 1.0, -1.0).to(rgb)], dim=-3), rgb


def fill_holes(source: Tensor, output: Tensor) -> Tensor:
    """Return the source with its holes filled from `output`, on the device of the source. Other pixels are kept.

    Shape: ``(b, 4, h, w)`` as of `split_holes`, and ``(b, 3, h, w)`` -> ``(b, 3, h, w)``.

    >>> source, _ = split_holes(torch.tensor([[0.5, -0.5], [0.5, -0.5], [0.5, -0.5], [1.0, -1.0]])[None, :, None])
    >>> fill_holes(source, torch.full((1, 3, 1, 2), 0.25))[0, 0]
    tensor([[0.5000, 0.2500]])
    """
    rgb, alpha = source.split([3, 1], dim=-3)
    return torch.where(alpha > 0, rgb, output.to(source))


@dataclass(frozen=True)
class ColourSpace:
    """A split of images into the source and the target of a network, and its inverse.

    Args:
        name: the value of a network's attribute `colours`.
        source: names of the source channels.
        target: names of the target channels.
        channels: the numbers of channels that an image may have. `split` gets the last; grey images are repeated.
        split: from images ``(b, channels[-1], h, w)`` to source ``(b, len(source), h, w)`` and target
            ``(b, len(target), h, w)``; all in [-1, 1].
        join: from a source and the output of a network to RGB images; the inverse of `split`.
        purpose: the task of a network, for error texts: "the generator ...".
        card: a sentence for the model card.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    channels: tuple[int, ...]
    split: Callable[[Tensor], tuple[Tensor, Tensor]]
    join: Callable[[Tensor, Tensor], Tensor]
    purpose: str
    card: str


LAB = ColourSpace(
    "lab", ("lightness",), ("a", "b"), (1, 3), split_lab, join_lab,
    "adds colour to an image of 1 channel (grey) or 3 (RGB, of which it uses the lightness)",
    "It gives colours to a grey picture, and to the lightness of a coloured one.",
)  # fmt: skip
RGBA = ColourSpace(
    "rgba", ("red", "green", "blue", "alpha"), ("red", "green", "blue"), (4,), split_holes, fill_holes,
    "fills the holes of an image of 4 channels (RGBA, whose alpha is 0 in the holes)",
    "It fills the transparent part of a picture, and keeps the other pixels.",
)  # fmt: skip
COLOUR_SPACES = {space.name: space for space in (LAB, RGBA)}


def colour_space(network: nn.Module) -> ColourSpace | None:
    """Return the colour space that the attribute `colours` of `network` names; None for a network of plain images.

    >>> colour_space(nn.Identity()) is None
    True
    """
    name = getattr(network, "colours", None)
    return COLOUR_SPACES.get(name) if isinstance(name, str) else None


def hues(count: int) -> tuple[Colour, ...]:
    """Return different colours to show up to 256 classes in.

    >>> hues(2)
    ((255, 128, 128), (0, 255, 255))
    """
    found = (hsv_to_rgb(i / count, 1.0 if i % 2 else 0.5, 1.0) for i in range(count))
    return tuple((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in found)


def check_palette(owner: str, palette: object, argument: str = "palette") -> tuple[Colour, ...]:
    """Return the colours of a palette: its name in `PALETTES`, a mapping from classes to colours, or a collection.

    Raises:
        ArgumentError: an unknown name, an empty palette, or an invalid or repeated colour.
    """
    if isinstance(palette, str):
        palette = PALETTES[one_of(owner, argument, palette, PALETTES)]
    if isinstance(palette, Mapping):
        palette = palette.values()
    if not isinstance(palette, Collection):
        raise ArgumentError(
            f"{owner}: {argument} must be a palette, a collection of colours (r, g, b), got {short_repr(palette)}."
        )
    colours = [tuple(colour) if isinstance(colour, Collection) else (colour,) for colour in palette]
    for colour in colours:
        if len(colour) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in colour):
            raise ArgumentError(
                f"{owner}: a colour of the palette must be three whole numbers from 0 to 255, got {short_repr(colour)}."
            )
    if not colours or len(set(colours)) < len(colours):
        twice = join_names([colour for colour, count in Counter(colours).items() if count > 1])
        why = f"has {twice} more than once" if colours else "is empty"
        raise ArgumentError(f"{owner}: the palette {why}. It needs a different colour for each class.")
    return tuple(colours)


def _faded(linear: Tensor, grey: Tensor) -> Tensor:
    """Mix colours that have a channel outside [0, 1] with the grey of their luminance."""
    away = linear - grey
    room, far = torch.where(away > 0, 1 - grey, grey), away.abs()
    # The clamp keeps the gradient of the unused branch finite.
    share = torch.where(far > room, room / far.clamp_min(1e-6), 1.0).amin(dim=-3, keepdim=True)
    return grey + share * away


def _checked(owner: str, image: Tensor) -> Tensor:
    if image.ndim < 3 or image.shape[-3] != 3:
        raise ShapeError(f"{owner}: expects three channels, (b, 3, h, w), got a tensor of shape {tuple(image.shape)}.")
    if not image.is_floating_point():
        raise ArgumentError(f"{owner}: expects floats, got {image.dtype}. For uint8 pixels: x.float() / 127.5 - 1.")
    return image if image.dtype == torch.float64 else image.float()


def _mixed(image: Tensor, matrix: Matrix) -> Tensor:
    """Multiply each pixel by `matrix`; element-wise, because a matrix product may run in bf16 or TF32."""
    r, g, b = image.unbind(-3)
    return torch.stack([row[0] * r + row[1] * g + row[2] * b for row in matrix], dim=-3)
