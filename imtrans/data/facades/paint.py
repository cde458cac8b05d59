"""Drawing of a facade's parts: textures, windows, balconies, doors and shops, in light and shade.

Coordinates are in units of the canvas, x to the right and y down. The canvas is a few times larger than the output. A
separate layer holds the light on each pixel; `Canvas.render` multiplies the picture with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imtrans.colours import Colour as Colour
from imtrans.data.procedural import Picture as Picture

Box = tuple[float, float, float, float]  # left, top, right, bottom

THIN = 0.0035  # the width of a glazing bar
LABELS: dict[str, Colour] = {
    "unknown": (0, 0, 0),
    "door": (0, 170, 255),
    "shop": (170, 0, 0),
    "balcony": (170, 255, 85),
    "window": (0, 85, 255),
    "wall": (0, 0, 255),
    "sky": (0, 0, 170),
    "roof": (255, 85, 0),
}
CREAM, LAMP, VOID = (240, 232, 214), (255, 206, 128), (34, 38, 46)


class Weather(NamedTuple):
    """Colours of the sky, tints of light and shade, and the fraction of windows that are lit by day."""

    zenith: Colour
    horizon: Colour
    cloud: Colour
    sun: tuple[float, float, float]
    shade: tuple[float, float, float]
    lit: float
    night: bool = False  # windows with curtains are lit
    closed: bool = False  # curtains are closed


class Courses(NamedTuple):
    """Rows of bricks or tiles: height and length of one, variation of the tones, darkness of the joints."""

    course: float
    length: float
    contrast: float
    joint: float


class Look(NamedTuple):
    """The colours of one building."""

    wall: Colour
    trim: Colour
    roof: Colour
    frame: Colour
    shutter: Colour
    door: Colour
    shop: Colour
    iron: Colour = (42, 43, 48)


def tone(colour: Colour, factor: float) -> Colour:
    """Scale the brightness of `colour`."""
    r, g, b = (min(255, int(c * factor)) for c in colour)
    return r, g, b


class Pane(NamedTuple):
    """A window pane, and whether there is light behind it."""

    image: Image.Image
    lit: bool


class Canvas:
    """The layers of a drawing: picture, light and labels. `sun` is 1 for light from the left, -1 from the right.

    At `night`, the picture has an alpha channel: 0 where the surface shines itself, 255 elsewhere.
    """

    def __init__(self, side: int, sun: int, *, palette: Mapping[str, Colour] = LABELS, night: bool = False) -> None:
        self.side, self.sun, self.palette = side, sun, palette
        self.picture = Image.new("RGBA" if night else "RGB", (side, side))
        self.light = Image.new("L", (side, side), 255)
        self.labels = Image.new("RGB", (side, side))
        layers = self.picture, self.light, self.labels
        self._draw, self._light, self._mark = (ImageDraw.Draw(layer) for layer in layers)

    def pixels(self, box: Box) -> tuple[int, int, int, int]:
        """Return the first and last pixel of `box` along each axis, at least one pixel."""
        x0, y0, x1, y1 = box
        left, top, side = int(x0 * self.side + 0.5), int(y0 * self.side + 0.5), self.side
        return left, top, max(left, int(x1 * side - 0.5)), max(top, int(y1 * side - 0.5))

    def box(
        self, box: Box, colour: Colour | None = None, *, light: int | None = None, label: str = "", arched: bool = False
    ) -> None:
        """Fill `box` in the layers for which a value is given; light is from 0 to 255."""
        mark = self.palette[label] if label else None
        for draw, value in ((self._draw, colour), (self._light, light), (self._mark, mark)):
            if value is not None:
                _fill(draw, self.pixels(box), value, arched)

    def relief(self, box: Box, colour: Colour, depth: float, *, arched: bool = False) -> None:
        """Paint a fully lit surface that stands out by `depth`, and its shadow."""
        x0, y0, x1, y1 = box
        reach = 0.6 * depth * self.sun
        self.box((x0 + reach, y0 + depth, x1 + reach, y1 + depth), light=40, arched=arched)
        self.box(box, colour, light=255, arched=arched)

    def recess(self, box: Box, depth: float, *, arched: bool = False) -> None:
        """Shade the inside of an opening along the top and the side of the sun."""
        x0, y0, x1, y1 = box
        left, right = (0.6 * depth, 0.0) if self.sun > 0 else (0.0, 0.6 * depth)
        self.box(box, light=70, arched=arched)
        self.box((x0 + left, y0 + depth, x1 - right, y1), light=255, arched=arched)

    def paste(self, texture: Image.Image, box: Box, *, arched: bool = False, lit: bool = False) -> None:
        """Fill `box` with a texture, cropped if it is as wide as the canvas, else resized. `lit`: shining at night."""
        x0, y0, x1, y1 = self.pixels(box)
        size = (x1 - x0 + 1, y1 - y0 + 1)
        fits = texture.width == self.side
        patch = texture.crop((x0, y0, x1 + 1, y1 + 1)) if fits else texture.resize(size)
        if lit and self.picture.mode == "RGBA":
            patch.putalpha(0)
        mask = Image.new("1", size)
        _fill(ImageDraw.Draw(mask), (0, 0, size[0] - 1, size[1] - 1), 1, arched)
        self.picture.paste(patch, (x0, y0), mask)

    def slope(self, texture: Image.Image, corners: Sequence[tuple[float, float]], label: str) -> None:
        """Paint and mark a polygon, with a texture as wide as the canvas."""
        points = [(round(x * self.side), round(y * self.side)) for x, y in corners]
        mask = Image.new("1", texture.size)
        ImageDraw.Draw(mask).polygon(points, fill=1)
        self.picture.paste(texture, (0, 0), mask)
        self._mark.polygon(points, fill=self.palette[label])
        self._light.polygon(points, fill=255)

    def zigzags(self, box: Box, step: float, colour: Colour) -> None:
        """Draw two crossing zigzag lines between the top and bottom of `box`."""
        x0, y0, x1, y1 = self.pixels(box)
        count = max(2, round((box[2] - box[0]) / step))
        for ends in ((y0, y1), (y1, y0)):
            line = [(x0 + (x1 - x0) * i / count, ends[i % 2]) for i in range(count + 1)]
            self._draw.line(line, fill=colour)

    def render(self, size: int, weather: Weather) -> tuple[Picture, Picture]:
        """Apply the light and downsample; return picture and labels, uint8 ``(size, size, 3)``."""
        factor = self.side // size
        night = self.picture.mode == "RGBA"
        photo = np.asarray((self.picture.convert("RGB") if night else self.picture).reduce(factor), np.float32)
        light = np.asarray(self.light.reduce(factor), np.float32)[..., None] / 255
        shade, sun = np.asarray((weather.shade, weather.sun), np.float32)
        light = (shade + (1 - shade) * light) * sun
        if night:
            light = light + _glow(self.picture.getchannel("A").reduce(factor))
        photo = photo * light
        labels = np.asarray(self.labels)[factor // 2 :: factor, factor // 2 :: factor]
        return np.clip(photo, 0, 255).astype(np.uint8), np.ascontiguousarray(labels)


def _glow(alpha: Image.Image) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """Return the lamplight ``h w 3`` on each pixel: all of it on surfaces that shine, and a halo around them."""
    halos = [alpha.filter(ImageFilter.GaussianBlur(alpha.width * radius)) for radius in (0.02, 0.08)]
    shining, near, far = (1 - np.asarray(each, np.float32)[..., None] / 255 for each in (alpha, *halos))
    lamp, halo = np.asarray(((0.8, 0.68, 0.4), (0.75, 0.52, 0.26)), np.float32)
    return np.asarray(shining * lamp + (near + far) * halo)


def _fill(draw: ImageDraw.ImageDraw, pixels: tuple[int, int, int, int], value: Colour | int, arched: bool) -> None:
    """Fill a box, with a flat arch on top if `arched`."""
    x0, y0, x1, y1 = pixels
    rise = min(y1 - y0, (x1 - x0) // 3) if arched else 0
    if arched:
        draw.ellipse((x0, y0, x1, y0 + 2 * rise), fill=value)
    draw.rectangle((x0, y0 + rise, x1, y1), fill=value)


def noise(rng: np.random.Generator, weights: Sequence[float]) -> Image.Image:
    """Return a 160 x 160 field of noise with mean 0, a sum of octaves from coarse to fine."""
    field = np.zeros((5, 5), np.float32)
    for octave, weight in enumerate(weights):
        side = 5 * 2**octave
        field = np.array(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC), np.float32)
        field += weight * rng.standard_normal((side, side), dtype=np.float32)
    return Image.fromarray(field).resize((160, 160), Image.Resampling.BICUBIC)


def masonry(rng: np.random.Generator, size: tuple[int, int], colour: Colour, of: Courses) -> Image.Image:
    """Return a stained surface of `size` (width, height) in pixels; its width is one unit."""
    tones = rng.normal(1, of.contrast, (int(1 / of.course) + 1, int(1 / of.length) + 2)).astype(np.float32)
    stains = noise(rng, (0.035, 0.03, 0.022, 0.018, 0.02, 0.02))
    depth = round(160 * size[1] / size[0])
    row, dy = np.divmod(np.arange(size[1]) / size[0] / of.course, 1)
    column, dx = np.divmod(np.arange(size[0]) / size[0] / of.length + np.array([[0], [0.5]]), 1)
    odd = row.astype(int) % 2
    value = tones[row.astype(int)[:, None], column.astype(int)[odd]]
    value *= np.where(dx * of.length < 0.8 / 384, 1 - of.joint, 1).astype(np.float32)[odd]
    value *= np.where(dy * of.course < 1.0 / 384, 1 - of.joint, 1).astype(np.float32)[:, None]
    value *= 1 + np.asarray(stains.crop((0, 0, 160, depth)).resize(size, Image.Resampling.BILINEAR))
    value = np.clip(value, 0, 255 / max(colour))
    return Image.merge("RGB", [Image.fromarray((value * np.float32(c)).astype(np.uint8)) for c in colour])


def sky(rng: np.random.Generator, side: int, weather: Weather) -> Image.Image:
    """Return a sky as large as the canvas: clouds on a gradient from zenith to horizon."""
    down = np.linspace(0, 4, 160, dtype=np.float32).clip(0, 1)[:, None, None]
    zenith, horizon, cloud = (np.asarray(c, np.float32) for c in (weather.zenith, weather.horizon, weather.cloud))
    puffs = noise(rng, (0.8, 0.7, 0.5, 0.3, 0.15)).crop((0, 0, 70, 160)).resize((160, 160))
    cover = (np.asarray(puffs)[..., None] * 0.5 + 0.2).clip(0, 0.9)
    air = zenith + (horizon - zenith) * down
    pixels = (air + (cloud - air) * cover).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)


def glass(rng: np.random.Generator, weather: Weather) -> Iterator[Pane]:
    """Yield endless window panes: reflected sky, dark rooms, curtains, lamps."""
    y, x = np.mgrid[0:1:40j, 0:1:28j].astype(np.float32)[..., None]
    near, far = np.asarray(VOID, np.float32), np.asarray(weather.zenith, np.float32)
    panes = []
    for _ in range(8):
        slant, open_to = rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.34)
        pane = near + (far - near) * (0.78 - slant * y - 0.25 * x).clip(0.06, 1)
        lit, curtains = rng.random() < weather.lit, rng.random() < 0.7
        lit = lit or (curtains and weather.night)
        if lit:
            pane = np.asarray(LAMP, np.float32) * (1.08 - 0.5 * np.hypot(x - 0.5, y - 0.35))
        if curtains:
            open_to = 0.0 if weather.closed else open_to
            folds = 0.74 + 0.1 * np.sin(x * 60) - 0.25 * y
            drawn = (np.abs(x - 0.5) > open_to + 0.12 * (1 - y)) * 0.85
            pane = pane + (np.asarray(CREAM, np.float32) * folds - pane) * drawn
        panes.append(Pane(Image.fromarray(pane.clip(0, 255).astype(np.uint8)), lit))
    while True:
        yield panes[rng.integers(len(panes))]


def window(canvas: Canvas, box: Box, look: Look, pane: Pane, *, arched: bool, shutters: bool) -> None:
    """Paint and label a window that fills `box`, with its shutters."""
    x0, y0, x1, y1 = box
    canvas.box(box, label="window", arched=arched)
    if shutters:
        leaf = 0.23 * (x1 - x0)
        for left in (x0, x1 - leaf):
            canvas.relief((left, y0, left + leaf, y1), look.shutter, 2 * THIN)
            for top in np.arange(y0 + THIN, y1 - THIN, 2.4 * THIN):
                canvas.box((left + THIN, top, left + leaf - THIN, top + THIN), tone(look.shutter, 0.74))
        x0, x1 = x0 + leaf, x1 - leaf
    rim = 0.0 if shutters else 2 * THIN
    canvas.relief((x0 - rim, y0 - 2 * THIN, x1 + rim, y1), look.trim, 1.5 * THIN, arched=arched)
    canvas.paste(pane.image, (x0, y0, x1, y1), arched=arched, lit=pane.lit)
    canvas.recess((x0, y0, x1, y1), 3 * THIN, arched=arched)
    middle, transom = (x0 + x1) / 2, y0 + 0.3 * (y1 - y0)
    edge = y0 + (x1 - x0) / 3 if arched else y0
    bars = [(x0, edge, x0 + THIN, y1), (x1 - THIN, edge, x1, y1), (x0, y1 - THIN, x1, y1)]
    bars += [(middle - THIN * 0.8, y0, middle + THIN * 0.8, y1), (x0, transom, x1, transom + THIN)]
    for bar in bars if arched else [*bars, (x0, y0, x1, y0 + THIN)]:
        canvas.box(bar, look.frame)
    canvas.box((x0, y1, x1, y1 + 0.016), light=215)
    canvas.relief((x0 - 2 * THIN, y1, x1 + 2 * THIN, y1 + 2 * THIN), tone(look.trim, 1.06), 2 * THIN)


def balcony(canvas: Canvas, box: Box, look: Look) -> None:
    """Paint and label an iron railing that fills `box`, on a stone slab."""
    x0, y0, x1, y1 = box
    slab = y1 - 2.5 * THIN
    for at in np.linspace(x0 + 0.012, x1 - 0.012, max(2, round((x1 - x0) / 0.09))):
        canvas.relief((at - 0.005, y1, at + 0.005, y1 + 0.012), tone(look.trim, 0.92), 0.008)
    canvas.box((x0, y1, x1, y1 + 0.02), light=60)
    canvas.relief((x0, slab, x1, y1), look.trim, 0.02)
    canvas.box((x0, y0, x1, slab), light=165)
    canvas.box(box, label="balcony")
    for at in np.linspace(x0, x1 - THIN, max(3, round((x1 - x0) / 0.0105))):
        canvas.box((at, y0, at + 0.75 * THIN, slab), look.iron)
    canvas.zigzags((x0, y0 + 0.3 * (slab - y0), x1, y0 + 0.8 * (slab - y0)), 0.0105, look.iron)
    for top in (y0, slab - THIN):
        canvas.box((x0, top, x1, top + 1.3 * THIN), look.iron)


def door(canvas: Canvas, box: Box, look: Look, pane: Pane, *, arched: bool) -> None:
    """Paint and label a double door that fills `box`, with a pane above it."""
    x0, y0, x1, y1 = box
    canvas.box(box, label="door", arched=arched)
    canvas.relief((x0 - 0.011, y0 - 0.011, x1 + 0.011, y1), look.trim, 0.008, arched=arched)
    canvas.paste(pane.image, box, arched=arched, lit=pane.lit)
    canvas.recess(box, 0.012, arched=arched)
    leaf = y0 + 0.27 * (y1 - y0)
    canvas.box((x0, leaf, x1, y1), look.door)
    canvas.box((x0, leaf - 2 * THIN, x1, leaf), tone(look.door, 1.25))
    middle = (x0 + x1) / 2
    for left, right in ((x0, middle), (middle, x1)):
        for top, bottom in ((0.08, 0.5), (0.58, 0.92)):
            panel = (left + 2 * THIN, leaf + top * (y1 - leaf), right - 2 * THIN, leaf + bottom * (y1 - leaf))
            canvas.box(panel, tone(look.door, 0.72))
            canvas.box((panel[0] + THIN, panel[1] + THIN, panel[2], panel[3]), tone(look.door, 1.15))
    canvas.box((middle - THIN / 2, y0, middle + THIN / 2, y1), tone(look.door, 0.55))
    lock = leaf + 0.5 * (y1 - leaf)
    canvas.box((middle + THIN, lock, middle + 2.4 * THIN, lock + 0.008), LAMP)


def shop(canvas: Canvas, box: Box, look: Look) -> None:
    """Paint and label a shop that fills `box`: sign, awning and display windows."""
    x0, y0, x1, y1 = box
    canvas.box(box, label="shop")
    sign, sill = y0 + 0.2 * (y1 - y0), y1 - 0.14 * (y1 - y0)
    canvas.relief(box, look.shop, 0.006)
    y, x = np.mgrid[0:1:24j, 0:1:24j].astype(np.float32)[..., None]
    goods = 0.25 * (np.abs(np.sin(10 * x)) > 0.35) * (y > 0.55) + 0.12 * (np.abs(y - 0.5) < 0.05)
    room = np.asarray(LAMP, np.float32) * (0.95 - 0.4 * y - 0.3 * np.abs(x - 0.5) - goods)
    display = Image.fromarray(room.clip(0, 255).astype(np.uint8))
    edges = np.linspace(x0 + 0.01, x1 - 0.01, max(2, round((x1 - x0) / 0.085)) + 1)
    for left, right in zip(edges[:-1] + THIN, edges[1:] - THIN, strict=True):
        canvas.paste(display, (left, sign + 0.01, right, sill), lit=True)
        canvas.recess((left, sign + 0.01, right, sill), 0.01)
        canvas.box((left + THIN, sill + 0.007, right - THIN, y1 - 0.007), tone(look.shop, 0.75))
    canvas.relief((x0 - 0.004, y0, x1 + 0.004, sign), look.shop, 0.007)
    canvas.box((x0 - 0.004, y0, x1 + 0.004, y0 + 1.5 * THIN), tone(look.shop, 1.5))
    middle, word = (x0 + x1) / 2, 0.3 * (x1 - x0)
    for at in np.arange(middle - word, middle + word, 0.013):
        canvas.box((at, y0 + 0.012, at + 0.0075, sign - 0.007), tone(CREAM, 0.92))
    hem = sign + 0.24 * (y1 - y0)
    canvas.box((x0, hem, x1, hem + 0.022), light=90)
    canvas.box((x0, sign, x1, hem), light=255)
    for i, (left, right) in enumerate(pairwise(np.linspace(x0, x1, round((x1 - x0) / 0.024) + 1))):
        cloth = tone(look.shop, 1.35) if i % 2 else CREAM
        canvas.box((left, sign, right, hem), cloth)
        canvas.box((left, hem - 0.008, right, hem + 0.004), tone(cloth, 0.86))


def street_lamp(canvas: Canvas, x: float) -> None:
    """Paint a lamp post on the pavement; its lantern shines at night."""
    iron, foot, top = (38, 42, 44), 0.985, 0.79
    for half, y0, y1 in ((0.006, top, foot), (0.009, foot - 0.05, foot), (0.013, foot - 0.014, foot)):
        canvas.box((x - half, y0, x + half, y1), iron, light=255)
    canvas.box((x - 0.023, top - 0.062, x + 0.023, top), iron, light=255)
    lantern = Image.new("RGB", (1, 1), (255, 244, 214))
    canvas.paste(lantern, (x - 0.019, top - 0.058, x + 0.019, top - 0.005), lit=True)
    canvas.box((x - 0.027, top - 0.068, x + 0.027, top - 0.058), iron)
    canvas.box((x - 0.007, top - 0.079, x + 0.007, top - 0.067), iron)
