"""Procedural towns seen from above: aerial pictures and street maps of one plan, from a seed.

A town is drawn with straight streets, in units of the canvas, and then looked at through a turned and slightly bent
window, which makes the streets curve. The map shows streets, buildings, parks and water. It does not show materials,
trees and cars.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from imtrans.colours import Colour
from imtrans.data.facades.paint import Box, Canvas, noise, tone
from imtrans.data.facades.plan import WEATHERS
from imtrans.data.procedural import Picture, ProceduralPairs, check_drawing

Point = tuple[float, float]

MAP: dict[str, Colour] = {
    "land": (242, 239, 233),
    "kerb": (206, 202, 194),
    "street": (255, 255, 255),
    "avenue": (252, 214, 112),
    "building": (217, 208, 201),
    "outline": (190, 178, 168),
    "park": (200, 230, 180),
    "path": (250, 250, 242),
    "water": (160, 205, 230),
}
"""The colours of the map."""

WINDOW = 0.66  # side of the window, in units of the canvas
ROOFS = ((176, 104, 82), (188, 120, 94), (158, 98, 82), (140, 134, 132), (116, 118, 126), (182, 144, 114))
FLAT_ROOFS = ((196, 194, 188), (168, 170, 172), (208, 202, 190), (140, 142, 146))
CARS = ((228, 228, 230), (38, 40, 46), (150, 34, 38), (60, 84, 130), (176, 178, 182))
ASPHALT, PAVEMENT, LAWN, PARK = (138, 138, 142), (200, 196, 188), (126, 150, 88), (110, 146, 76)
TREES = ((58, 88, 46), (66, 98, 50), (78, 108, 56), (52, 80, 48))
SAND, STONE, WATER = (222, 208, 176), (204, 198, 186), (78, 118, 134)


class Street(NamedTuple):
    """A street along one axis: its middle and half of its width on the other axis."""

    at: float
    half: float

    @property
    def is_avenue(self) -> bool:
        return self.half > 0.015


def draw_town(seed: int, index: int, size: int) -> tuple[Picture, Picture]:
    """Draw town `index` of the series `seed`: the aerial picture and the map, uint8 ``(size, size, 3)``.

    The town does not depend on `size`.

    Raises:
        ArgumentError: a `seed` or `index` below 0, a `size` below 16, or one that is not an integer.

    >>> aerial, chart = draw_town(0, 7, 64)
    >>> aerial.shape, aerial.dtype, chart.shape
    ((64, 64, 3), dtype('uint8'), (64, 64, 3))
    """
    check_drawing("draw_town", seed=seed, index=index, size=size)
    rng = np.random.default_rng((seed, index))
    town = Town(rng, size * max(2, -(-384 // size)))
    town.draw()
    return town.render_window(size)


class Town(Canvas):
    """The drawing of a town; `window_side` is the width of the window in pixels of the canvas."""

    def __init__(self, rng: np.random.Generator, window_side: int) -> None:
        super().__init__(round(window_side / WINDOW), int(rng.choice((-1, 1))), palette=MAP)
        self.rng, self.window_side = rng, window_side
        angle = rng.uniform(-0.4, 0.4)
        self.direction = float(np.cos(angle)), float(np.sin(angle))  # of the upper edge of the window

    def draw(self) -> None:
        """Draw the whole plan, from the ground up."""
        rng = self.rng
        across, down = (self._streets() for _ in range(2))  # at x, from top to bottom; and at y
        river = int(rng.integers(2, len(down) - 3)) if rng.random() < 0.5 else None
        self.box((0, 0, 1, 1), ASPHALT, label="land")
        self._map_streets(across, down)
        for row, (top, bottom) in enumerate(pairwise(down)):
            for left, right in pairwise(across):
                block = left.at + left.half, top.at + top.half, right.at - right.half, bottom.at - bottom.half
                if row != river and self._in_window(block):
                    self._block(block)
        for avenues in (False, True):
            for streets, upright in ((across, True), (down, False)):
                for street in streets:
                    if street.is_avenue == avenues:
                        self._traffic(street, upright=upright)
            if river is not None and not avenues:  # the traffic of avenues is on the bridges
                self._river(down[river], down[river + 1], across)

    def _streets(self) -> list[Street]:
        gaps = self.rng.uniform(0.115, 0.2, 12)
        middles = [at for at in self.rng.uniform(-0.15, 0) + gaps.cumsum() if at < 1.15]
        first, every = self.rng.integers(3), self.rng.integers(2, 5)
        return [Street(float(at), 0.022 if i % every == first % every else 0.0125) for i, at in enumerate(middles)]

    def _map_streets(self, across: list[Street], down: list[Street]) -> None:
        for rim, avenues in ((0.003, False), (0.003, True), (0.0, False), (0.0, True)):
            for streets, upright in ((across, True), (down, False)):
                for street in streets:
                    if street.is_avenue == avenues:
                        half = street.half + rim
                        box = (street.at - half, 0.0, street.at + half, 1.0)
                        self.box(_turned(box, upright), label="kerb" if rim else "avenue" if avenues else "street")

    def _block(self, block: Box) -> None:
        """Draw a block of one of the kinds."""
        self.box(block, PAVEMENT)
        kinds = (self._houses, self._terrace, self._halls, self._park)
        kinds[self.rng.choice(4, p=(0.46, 0.24, 0.14, 0.16))](_shrunk(block, 0.005))

    def _houses(self, plot: Box) -> None:
        """Draw two rows of detached houses, back to back, with gardens."""
        rng, (x0, y0, x1, y1) = self.rng, plot
        self.box(plot, tone(LAWN, rng.uniform(0.9, 1.1)))
        edges = np.linspace(x0, x1, max(1, round((x1 - x0) / 0.042)) + 1)
        depth = min(0.034, 0.36 * (y1 - y0))
        self._trees((x0 + 0.01, (y0 + y1) / 2 - 0.008, x1 - 0.01, (y0 + y1) / 2 + 0.008), 0.02)
        for left, right in pairwise(edges):
            for front, into in ((y0, 1), (y1, -1)):
                gap = rng.uniform(0.006, 0.012)
                near, far = front + into * gap, front + into * (gap + depth * rng.uniform(0.8, 1))
                self.box((left + 0.004, min(front, far), left + 0.01, max(front, far)), STONE)
                width = rng.uniform(0.62, 0.8) * (right - left)
                house = (right - 0.004 - width, min(near, far), right - 0.004, max(near, far))
                self._roof(house, ROOFS[rng.integers(len(ROOFS))], upright=bool(rng.random() < 0.3))
                if rng.random() < 0.5:
                    self._tree(left + 0.012, far + into * 0.006)

    def _terrace(self, plot: Box) -> None:
        """Draw a closed ring of houses around a courtyard."""
        rng, (x0, y0, x1, y1) = self.rng, plot
        depth, colour = min(0.03, 0.3 * min(x1 - x0, y1 - y0)), ROOFS[rng.integers(len(ROOFS))]
        yard = _shrunk(plot, depth)
        self._footprint(plot)
        self.box(plot, light=255)
        self.box(yard, tone(LAWN, 0.9) if rng.random() < 0.6 else STONE, label="land")
        rows = (x0, y0, x1, y0 + depth), (x0, y1 - depth, x1, y1)
        columns = (x0, y0 + depth, x0 + depth, y1 - depth), (x1 - depth, y0 + depth, x1, y1 - depth)
        for wing in (*rows, *columns):
            self._slopes(wing, tone(colour, rng.uniform(0.95, 1.05)), upright=wing in columns)
        self.box((yard[0], yard[1], yard[2], yard[1] + 0.012), light=60)
        side = (yard[0], yard[1], yard[0] + 0.007, yard[3]) if self.sun > 0 else (yard[2] - 0.007, *yard[1:])
        self.box(side, light=60)
        self._trees(_shrunk(yard, 0.014), 0.03)

    def _halls(self, plot: Box) -> None:
        """Draw a large building with a flat roof, and its car park."""
        rng, (x0, y0, x1, y1) = self.rng, plot
        self.box(plot, tone(ASPHALT, 1.12))
        split = x0 + rng.uniform(0.55, 0.75) * (x1 - x0)
        hall, colour = (x0 + 0.006, y0 + 0.006, split, y1 - 0.006), FLAT_ROOFS[rng.integers(len(FLAT_ROOFS))]
        self._footprint(hall)
        self.relief(hall, colour, 0.014)
        self.box(_shrunk(hall, 0.003), tone(colour, 0.93))
        for y in np.arange(hall[1] + 0.014, hall[3] - 0.016, 0.022):
            self.box((hall[0] + 0.012, y, hall[2] - 0.012, y + 0.006), tone(colour, 1.14))
        for x in np.arange(split + 0.012, x1 - 0.01, 0.01):
            for y in (y0 + 0.012, y1 - 0.026):
                self.box((x, y, x + 0.0015, y + 0.016), (222, 222, 220))
                if rng.random() < 0.7:
                    self._car((x + 0.0025, y + 0.001, x + 0.0085, y + 0.014))

    def _park(self, plot: Box) -> None:
        """Draw lawns, paths and trees, perhaps with a pond."""
        rng, (x0, y0, x1, y1) = self.rng, plot
        self.box(plot, PARK, label="park")
        middle, half = ((x0 + x1) / 2, (y0 + y1) / 2), 0.0035
        for start, end in (((x0, y0), (x1, y1)), ((x0, y1), (x1, y0))):
            (ax, ay), (bx, by) = start, end
            self.shape([(ax - half, ay), (ax + half, ay), (bx + half, by), (bx - half, by)], SAND, label="path")
        radius = rng.uniform(0.2, 0.3) * min(x1 - x0, y1 - y0)
        self.disc(*middle, radius + 0.006, SAND, label="path")
        pond = rng.random() < 0.55
        self.disc(*middle, radius, WATER if pond else tone(PARK, 1.15), label="water" if pond else "park")
        for _ in range(round((x1 - x0) * (y1 - y0) / 0.0006)):
            x, y = rng.uniform((x0 + 0.008, y0 + 0.008), (x1 - 0.008, y1 - 0.008))
            if np.hypot(x - middle[0], y - middle[1]) > radius + 0.016:
                self._tree(x, y)

    def _river(self, top: Street, bottom: Street, across: list[Street]) -> None:
        """Draw a river between two streets, its banks, and the bridges of the avenues."""
        rng, y0, y1 = self.rng, top.at + top.half, bottom.at - bottom.half
        self.box((0, y0, 1, y1), PARK, label="park")
        x = np.linspace(0, 1, 60)
        phase, bends = rng.uniform(0, 6.3), rng.uniform(7, 12)
        wave = (y0 + y1) / 2 + 0.1 * (y1 - y0) * np.sin(bends * x + phase)
        for reach, colour, label in ((0.34, STONE, "park"), (0.3, WATER, "water")):
            half = reach * (y1 - y0) * (1 + 0.15 * np.sin(2 * bends * x))
            shores = [*zip(x, wave - half, strict=True), *zip(x[::-1], (wave + half)[::-1], strict=True)]
            self.shape(shores, colour, label=label)
        for bank in ((0.0, y0 + 0.008, 1.0, y0 + 0.014), (0.0, y1 - 0.014, 1.0, y1 - 0.008)):
            self._trees(bank, 0.022)
        for street in across:
            if street.is_avenue:
                deck = (street.at - street.half - 0.004, y0 - 0.002, street.at + street.half + 0.004, y1 + 0.002)
                road = (street.at - street.half, y0 - 0.004, street.at + street.half, y1 + 0.004)
                self.box((deck[0] + 0.01 * self.sun, y0, deck[2] + 0.01 * self.sun, y1), light=90)
                self.box(deck, STONE, light=255, label="kerb")
                self.box(road, ASPHALT, label="avenue")

    def _traffic(self, street: Street, *, upright: bool) -> None:
        """Draw the centre line of an avenue, and cars on any street."""
        rng = self.rng
        if street.is_avenue:
            middle = (street.at - 0.0012, 0.0, street.at + 0.0012, 1.0)
            self.box(_turned(middle, upright), (206, 204, 196))
        for along in np.arange(rng.uniform(0, 0.05), 1, 0.05 if street.is_avenue else 0.1):
            lane = street.at + (0.4 * street.half if rng.random() < 0.5 else -0.4 * street.half)
            start = along + rng.uniform(0, 0.03)
            car = _turned((lane - 0.003, start, lane + 0.003, start + 0.013), upright)
            if rng.random() < 0.75 and self._in_window(car):
                self._car(car)

    def _footprint(self, box: Box) -> None:
        """Mark a building on the map, with its outline."""
        self.box(box, label="outline")
        self.box(_shrunk(box, 0.002), label="building")

    def _roof(self, box: Box, colour: Colour, *, upright: bool) -> None:
        """Draw a house with a gable roof, its shadow, and a chimney."""
        self._footprint(box)
        self.relief(box, colour, 0.008)
        self._slopes(box, tone(colour, self.rng.uniform(0.92, 1.08)), upright=upright)
        x, y = box[0] + 0.3 * (box[2] - box[0]), box[1] + 0.25 * (box[3] - box[1])
        self.box((x, y, x + 0.004, y + 0.004), tone(colour, 0.6))

    def _slopes(self, box: Box, colour: Colour, *, upright: bool) -> None:
        """Paint both slopes of a roof, the one to the sun brighter, and the ridge."""
        x0, y0, x1, y1 = box
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        first, second = ((x0, y0, x, y1), (x, y0, x1, y1)) if upright else ((x0, y0, x1, y), (x0, y, x1, y1))
        tones = (0.82, 1.1) if upright and self.sun < 0 else (1.1, 0.82)
        for half, brightness in zip((first, second), tones, strict=True):
            self.box(half, tone(colour, brightness))
        ridge = (x - 0.001, y0, x + 0.001, y1) if upright else (x0, y - 0.001, x1, y + 0.001)
        self.box(ridge, tone(colour, 1.3))

    def _trees(self, box: Box, gap: float) -> None:
        """Draw trees in rows that fill `box`, about `gap` apart."""
        for x in np.arange(box[0], box[2], gap):
            for y in np.arange(box[1], box[3], gap):
                if self.rng.random() < 0.75:
                    self._tree(x + self.rng.uniform(-0.3, 0.3) * gap, y + self.rng.uniform(-0.2, 0.2) * gap)

    def _tree(self, x: float, y: float) -> None:
        rng, radius = self.rng, self.rng.uniform(0.006, 0.0105)
        colour = TREES[rng.integers(len(TREES))]
        self.disc(x + 0.6 * radius * self.sun, y + 0.8 * radius, radius, light=80)
        self.disc(x, y, radius, colour, light=255)
        self.disc(x - 0.25 * radius * self.sun, y - 0.3 * radius, 0.55 * radius, tone(colour, 1.35))

    def _car(self, box: Box) -> None:
        colour = CARS[self.rng.integers(len(CARS))]
        self.relief(box, colour, 0.0025)
        self.box(_shrunk(box, 0.0015), tone(colour, 0.7))

    def disc(self, x: float, y: float, radius: float, colour: Colour | None = None, **layers: Any) -> None:
        """Fill a disc in the layers for which a value is given, as `box`."""
        pixels = self.pixels((x - radius, y - radius, x + radius, y + radius))
        for draw, value in self._values(colour, **layers):
            draw.ellipse(pixels, fill=value)

    def shape(self, corners: Iterable[Point], colour: Colour | None = None, **layers: Any) -> None:
        """Fill a polygon in the layers for which a value is given."""
        points = [(x * self.side, y * self.side) for x, y in corners]
        for draw, value in self._values(colour, **layers):
            draw.polygon(points, fill=value)

    def render_window(self, size: int) -> tuple[Picture, Picture]:
        """Return picture and map in the window, uint8 ``(size, size, 3)``."""
        rng, factor = self.rng, self.window_side // size
        weather, stains = tuple(WEATHERS.values())[rng.integers(3)], noise(rng, (0.03, 0.03, 0.03, 0.03, 0.035, 0.04))
        bends, phases = rng.uniform(0, 0.014, 2), rng.uniform(0, 6.3, 2)
        along = (np.arange(self.window_side) + 0.5) / self.side - WINDOW / 2
        (right, down), (cos, sin) = bends[:, None] * np.sin(9 * along + phases[:, None]) + 0.5, self.direction
        x = (cos * along + (right - sin * along)[:, None]) * self.side
        y = (sin * along + down + (cos * along)[:, None]) * self.side
        at = y.astype(np.int32) * self.side + x.astype(np.int32)

        def seen(layer: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
            """Take the pixels in the window of a layer of four channels."""
            pixels = np.asarray(layer).view(np.uint32).ravel()[at]
            return np.asarray(Image.frombytes("RGBX", at.shape, pixels.tobytes()).reduce(factor))

        lit = seen(Image.merge("RGBX", (*self.picture.split(), self.light))).astype(np.float32)
        light = lit[..., 3:] / 255
        shade, sun = np.asarray((weather.shade, weather.sun), np.float32)
        light = (shade + (1 - shade) * light) * sun
        light *= 1 + np.asarray(stains.resize((size, size), Image.Resampling.BILINEAR))[..., None]
        chart = seen(self.labels.convert("RGBX"))[..., :3]
        return (lit[..., :3] * light).clip(0, 255).astype(np.uint8), np.ascontiguousarray(chart)

    def _in_window(self, box: Box) -> bool:
        """Whether a box may be visible."""
        x, y, (cos, sin) = (box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5, self.direction
        room = WINDOW / 2 + 0.02 + 0.7 * max(box[2] - box[0], box[3] - box[1])
        return bool(max(abs(cos * x + sin * y), abs(cos * y - sin * x)) < room)

    def _values(
        self, colour: Colour | None, *, light: int | None = None, label: str = ""
    ) -> Iterator[tuple[ImageDraw.ImageDraw, Colour | int]]:
        mark = MAP[label] if label else None
        for draw, value in ((self._draw, colour), (self._light, light), (self._mark, mark)):
            if value is not None:
                yield draw, value


def _turned(box: Box, upright: bool) -> Box:
    """Swap both axes of a box unless `upright`."""
    x0, y0, x1, y1 = box
    return box if upright else (y0, x0, y1, x1)


def _shrunk(box: Box, by: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 + by, y0 + by, x1 - by, y1 - by


class ProceduralTowns(ProceduralPairs):
    """Aerial pictures of procedural towns (A) and their street maps (B).

    Arguments, samples and errors are as in `imtrans.data.procedural.ProceduralPairs`.

    >>> ProceduralTowns(4, size=32, direction="BtoA")
    4 procedural towns of seed 0, maps to aerial pictures, as Jitter(size=32, load_size=None, flip=True)
    """

    subject, content = "town", ("aerial pictures", "maps")

    def draw_pair(self, index: int, size: int) -> tuple[Picture, Picture]:
        """Draw the aerial picture and the map of town `index`."""
        return draw_town(self.seed, index, size)
