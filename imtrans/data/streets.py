"""Procedural streets, seen from a car: pictures and label maps with the ids of Cityscapes, from a seed.

The units of a scene are metres: x to the right, y up from the road, z forward from the camera. Things are drawn from
far to near, so that near ones cover far ones.
"""

from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from imtrans.checks import at_least
from imtrans.colours import Colour
from imtrans.data.cityscapes import LABEL_IDS, LABELS, PHOTO
from imtrans.data.facades import paint
from imtrans.data.facades.paint import tone
from imtrans.data.facades.plan import WEATHERS
from imtrans.data.procedural import Picture, check_drawing

Ids = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
Point = tuple[float, float, float]

EGO_VEHICLE = 1  # label id of the car with the camera, which has no class in the benchmark
ROAD, PAVE = 5.0, 8.5  # x of the kerb and of the house fronts
HORIZON, FOCAL, EYE = 0.44, 1.15, 1.5  # relative to the height of the picture; and metres
FAR, NEAR, BAY = 95.0, 2.2, 2.5  # BAY: from one window to the next
ASPHALT, PAVEMENT, GRASS, GLASS = (104, 104, 108), (164, 160, 154), (112, 132, 84), (52, 60, 72)
LEAVES = ((74, 102, 58), (86, 114, 62), (66, 92, 56), (98, 118, 66))
WALLS = ((206, 168, 132), (178, 108, 84), (218, 206, 180), (196, 200, 198))  # of 3 to 6 storeys
ROOFS = ((176, 98, 70), (120, 112, 106), (104, 112, 124), (98, 104, 112))
PARKED, MOVING, BUS = (70, 96, 140), (216, 218, 220), (222, 178, 66)
WEATHER = WEATHERS["clear"]
CLOTHES = ((52, 56, 72), (120, 48, 50), (68, 92, 70), (150, 134, 104), (42, 42, 46), (72, 98, 138))


def draw_street(seed: int, index: int, height: int) -> tuple[Picture, Ids]:
    """Draw street `index` of the series `seed`: picture ``(height, 2 height, 3)`` and label ids ``(height, 2 height)``.

    Both are uint8. The street does not depend on `height`. The ids are those in `LABEL_IDS`, and `EGO_VEHICLE`.

    Raises:
        ArgumentError: a `seed` or `index` below 0, a `height` below 16, or one that is not an integer.

    >>> picture, ids = draw_street(0, 7, 32)
    >>> picture.shape, ids.shape
    ((32, 64, 3), (32, 64))
    """
    check_drawing("draw_street", seed=seed, index=index, height=height)
    scene = _Scene(np.random.default_rng((seed, index)), height * max(2, -(-384 // height)))
    scene.draw()
    return scene.render(height)


def save_streets(
    folder: str | PathLike[str], count: int, *, split: str = "train", height: int = 256, seed: int = 0
) -> None:
    """Draw `count` streets and save them in the folders of Cityscapes, as the city "procedural".

    Arguments and errors are otherwise as for `draw_street`. `imtrans.data.cityscapes.CityscapesImages` reads them.
    """
    at_least("save_streets", "count", count, 1)
    photos, labels = (Path(folder) / name / split / "procedural" for name in ("leftImg8bit", "gtFine"))
    for path in (photos, labels):
        path.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = f"procedural_{index:06d}_000000"
        for path, pixels in zip(
            (photos / f"{name}{PHOTO}", labels / f"{name}{LABELS}"), draw_street(seed, index, height), strict=True
        ):
            Image.fromarray(pixels).save(path)


class _Scene:
    """The picture and the labels of a street."""

    def __init__(self, rng: np.random.Generator, height: int) -> None:
        self.rng, self.height = rng, height
        self.picture = Image.new("RGB", (2 * height, height))
        self.labels = Image.new("L", (2 * height, height))
        self._draw, self._mark = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.labels)
        self.middle = float(rng.uniform(0.95, 1.05))  # of the picture, in heights: where the street ends
        self.sun = int(rng.choice((-1, 1)))  # -1: from the left
        self._things: list[tuple[float, Callable[[], None]]] = []

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return a point in pixels."""
        return self.height * (self.middle + FOCAL * x / z), self.height * (HORIZON - FOCAL * (y - EYE) / z)

    def shape(self, points: Iterable[Point], colour: Colour, label: str = "") -> None:
        """Fill a polygon, paler in the distance, and label it."""
        points = list(points)
        flat = [self.project(*point) for point in points]
        self._draw.polygon(flat, fill=self._hazed(colour, min(point[2] for point in points)))
        if label:
            self._mark.polygon(flat, fill=LABEL_IDS[label])

    def _hazed(self, colour: Colour, z: float) -> Colour:
        haze = 1 - np.exp(-z / 160)
        r, g, b = (int(c + (far - c) * haze) for c, far in zip(colour, WEATHER.horizon, strict=True))
        return r, g, b

    def front(self, x: tuple[float, float], y: tuple[float, float], z: float, colour: Colour, label: str = "") -> None:
        """Fill a rectangle that faces the camera."""
        self.shape([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)], colour, label)

    def side(self, x: float, y: tuple[float, float], z: tuple[float, float], colour: Colour, label: str = "") -> None:
        """Fill a rectangle along the street, brighter if it faces the sun."""
        lit = 1.04 if (x > 0) == (self.sun < 0) else 0.86
        corners = [(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])]
        self.shape(corners, tone(colour, lit), label)

    def floor(
        self, x: tuple[float, float], z: tuple[float, float], colour: Colour, label: str = "", y: float = 0
    ) -> None:
        """Fill a rectangle on the ground, or at height `y`."""
        self.shape([(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])], colour, label)

    def ball(self, at: Point, radius: float, colour: Colour, label: str = "", *, stretch: float = 1.0) -> None:
        """Fill an ellipse, `stretch` times as high as wide."""
        (x, y), reach = self.project(*at), self.height * FOCAL * radius / at[2]
        box = (x - reach, y - stretch * reach, x + reach, y + stretch * reach)
        self._draw.ellipse(box, fill=self._hazed(colour, at[2]))
        if label:
            self._mark.ellipse(box, fill=LABEL_IDS[label])

    def draw(self) -> None:
        """Draw the whole scene."""
        self._sky_and_ground()
        for sign in (-1, 1):
            self._row_of_houses(sign)
            self._kerbside(sign)
        self._traffic()
        for _, draw in sorted(self._things, key=lambda thing: -thing[0]):
            draw()
        self._ego_vehicle()

    def _add(self, z: float, draw: Callable[..., None], *arguments: Any) -> None:
        """Have ``draw(*arguments)`` called after all that is farther than `z`."""
        self._things.append((float(z), partial(draw, *arguments)))

    def _sky_and_ground(self) -> None:
        rng, width = self.rng, 2 * self.height
        sky = paint.sky(rng, width // 2, WEATHER).resize((width, width))
        self.picture.paste(sky)
        self._mark.rectangle((0, 0, width, self.height), fill=LABEL_IDS["sky"])
        grass = bool(rng.random() < 0.4)
        self.floor((-400, 400), (NEAR, 400), GRASS, "terrain")
        for sign in (-1, 1):
            kerb, edge = sorted((sign * ROAD, sign * PAVE))
            self.floor((kerb, edge), (NEAR, 400), PAVEMENT, "sidewalk")
            if grass:
                self.floor((sign * (ROAD + 0.3), sign * (ROAD + 1.2)), (NEAR, 400), GRASS, "terrain")
        self.floor((-ROAD, ROAD), (NEAR, 400), ASPHALT, "road")
        for sign in (-1, 1):
            self.floor((sign * ROAD, sign * (ROAD + 0.25)), (NEAR, 400), tone(PAVEMENT, 1.15))
        for z in np.arange(3.0, 80, 6):
            self.floor((-0.08, 0.08), (z, z + 3), (216, 216, 212))

    def _row_of_houses(self, sign: int) -> None:
        """Add houses, and gaps with trees behind a fence or a wall, on one side of the street."""
        rng, z = self.rng, 0.0
        while z < FAR:
            depth = BAY * int(rng.integers(3, 7))
            lot = sign, (max(z, BAY), z + depth)
            self._add(z + depth, self._house(*lot) if rng.random() < 0.78 else self._garden(*lot))
            z += depth

    def _house(self, sign: int, z: tuple[float, float]) -> Callable[[], None]:
        """Return what draws a house. The number of storeys decides its colours."""
        rng = self.rng
        storeys, bays = int(rng.integers(3, 7)), round((z[1] - z[0]) / BAY)
        wall, roof = tone(WALLS[storeys - 3], rng.uniform(0.95, 1.05)), ROOFS[storeys - 3]
        shop, x = bool(rng.random() < 0.4), sign * PAVE
        awning, height = CLOTHES[rng.integers(len(CLOTHES))], 3.1 * storeys + 0.9

        def draw() -> None:
            self.front(_ordered(x, x + sign * 12), (0, height), z[0], tone(wall, 0.84), "building")
            self.side(x, (0, height), z, wall, "building")
            ridge = x + sign * 2
            eaves = [(x, height, z[0]), (x, height, z[1])]
            self.shape([*eaves, (ridge, height + 1.8, z[1]), (ridge, height + 1.8, z[0])], roof, "building")
            self.side(x, (height - 0.35, height), z, tone(wall, 1.12))
            self.side(x, (0, 0.6), z, tone(wall, 0.8))
            if z[0] > 55:
                return
            for storey in range(storeys):
                for bay in range(bays):
                    near = z[0] + (bay + 0.26) * BAY
                    across, up = (near, near + 0.48 * BAY), (3.1 * storey + 1.0, 3.1 * storey + 2.7)
                    if storey == 0 and shop:
                        across, up = (near - 0.18 * BAY, near + 0.66 * BAY), (0.5, 2.5)
                    self.side(x, (up[0] - 0.15, up[1] + 0.15), (across[0] - 0.12, across[1] + 0.12), tone(wall, 1.14))
                    self.side(x, up, across, GLASS)
                    if storey or not shop:
                        self.side(x, (up[0], up[1]), (sum(across) / 2 - 0.05, sum(across) / 2 + 0.05), tone(wall, 1.1))
            if shop:
                self.side(x, (2.65, 3.25), z, awning)

        return draw

    def _garden(self, sign: int, z: tuple[float, float]) -> Callable[[], None]:
        rng, x, fenced = self.rng, sign * PAVE, bool(self.rng.random() < 0.5)
        trees = [
            (float(x + sign * rng.uniform(2, 7)), float(rng.uniform(*z)), float(rng.uniform(0.8, 1.3)))
            for _ in range(5)
        ]

        def draw() -> None:
            for at, far, scale in sorted(trees, key=lambda tree: -tree[1]):
                self._tree(at, far, scale)
            if not fenced:
                self.side(x, (0, 1.5), z, (150, 132, 116), "wall")
                self.side(x, (1.4, 1.55), z, (176, 164, 150))
                return
            self.side(x, (0.1, 1.2), z, (96, 104, 92), "fence")
            for post in np.arange(z[0], z[1], 0.7 if z[0] < 30 else 3):
                self.side(x, (0, 1.3), (post, post + 0.15), (58, 62, 58), "fence")

        return draw

    def _kerbside(self, sign: int) -> None:
        """Add parked cars, trees, poles, signs, bicycles and people on one side of the street."""
        rng = self.rng
        planted, parked = rng.random() < 0.6, rng.random() < 0.75
        for z in np.arange(rng.uniform(7, 14), 80, 11):
            if planted and rng.random() < 0.8:
                self._add(z, self._tree, sign * (ROAD + 0.7), z, rng.uniform(0.7, 1.0))
            elif rng.random() < 0.6:
                self._add(z, self._pole, sign * (ROAD + 0.5), z, sign, int(rng.integers(3)))
        for z in np.arange(rng.uniform(6, 11), 80, 6):
            if parked and rng.random() < 0.7:
                self._add(z, self._car, sign * (ROAD - 1.15), z, PARKED, sign > 0)
        for z in rng.uniform(6, 40, rng.integers(0, 5)):
            self._add(
                z, self._person, sign * rng.uniform(ROAD + 1.2, PAVE - 0.5), z, CLOTHES[rng.integers(len(CLOTHES))]
            )
        if rng.random() < 0.25:
            z = rng.uniform(7, 20)
            self._add(z, self._bicycle, sign * (ROAD + 1.0), z, False)

    def _traffic(self) -> None:
        """Add the vehicles on the road."""
        rng = self.rng
        for sign in (-1, 1):
            lane = 1.9 * sign
            for z in np.arange(rng.uniform(9, 24), 85, 15):
                kind = rng.random()
                draw = self._car if kind < 0.72 else self._truck if kind < 0.84 else self._bus if kind < 0.94 else None
                if draw is not None and rng.random() < 0.55:
                    self._add(z, draw, lane, z, MOVING, sign > 0)
                elif rng.random() < 0.2:
                    self._add(z, self._bicycle, 1.4 * lane, z, True)

    def _tree(self, x: float, z: float, scale: float) -> None:
        rng = self.rng
        colour = LEAVES[rng.integers(len(LEAVES))]
        self.front((x - 0.14 * scale, x + 0.14 * scale), (0, 3 * scale), z, (78, 66, 54), "vegetation")
        blobs = rng.uniform((-1.3, 2.7, 0.8), (1.3, 5.6, 1.5), (12, 3)) * scale
        for light, shift in ((0.72, 0.0), (1.0, 0.25), (1.25, 0.5)):
            for dx, y, radius in blobs[: 12 if light < 1 else 8]:
                at = x + dx + self.sun * shift * 0.6, y + shift, z
                self.ball(at, radius * (1 - 0.6 * shift), tone(colour, light), "vegetation")

    def _pole(self, x: float, z: float, sign: int, kind: int) -> None:
        height = (5.5, 2.6, 3.4)[kind]
        self.front((x - 0.06, x + 0.06), (0, height), z, (92, 94, 98), "pole")
        if kind == 0:  # a street lamp
            self.front(_ordered(x, x - 1.4 * sign), (height - 0.1, height), z, (92, 94, 98), "pole")
        elif kind == 1:
            self.ball((x, height, z), 0.42, (214, 216, 218), "traffic sign")
            self.ball((x, height, z), 0.36, (40, 84, 160))
        else:
            self.front((x - 0.2, x + 0.2), (height - 0.95, height), z, (38, 40, 42), "traffic light")
            for y, colour in ((0.17, (196, 50, 44)), (0.47, (98, 84, 40)), (0.77, (46, 92, 62))):
                self.ball((x, height - y, z), 0.12, colour)

    def _car(self, x: float, z: float, colour: Colour, ahead: bool) -> None:
        """Draw a car: one that is `ahead` shows its tail lights, another one its headlights."""
        long, half = 4.2, 0.88
        inner = x - half if x > 0 else x + half  # the side that the camera sees
        self.floor((x - half - 0.15, x + half + 0.15), (z - 0.2, z + long), tone(ASPHALT, 0.45))
        for at in (z + 0.75, z + long - 0.8):
            self.side(inner, (0, 0.62), (at - 0.33, at + 0.33), (24, 24, 26), "car")
        self.side(inner, (0.24, 0.92), (z, z + long), colour, "car")
        self.side(inner * 0.99, (0.88, 1.44), (z + 0.75, z + 3.4), tone(colour, 0.9), "car")
        self.side(inner * 0.99, (0.94, 1.36), (z + 0.9, z + 3.2), GLASS)
        self.floor((x - half, x + half), (z, z + long), tone(colour, 1.1), "car", y=0.92)
        for wide, narrow, (y0, y1), far, tint, label in (
            (0.82, 0.64, (0.9, 1.46), z + 0.8, tone(colour, 0.96), "car"),
            (0.7, 0.56, (0.96, 1.38), z + 0.7, tone(GLASS, 1.2), ""),
        ):
            sill, roof = (
                ((x - wide, y0, z + 0.2), (x + wide, y0, z + 0.2)),
                ((x + narrow, y1, far), (x - narrow, y1, far)),
            )
            self.shape([*sill, *roof], tint, label)
        for tyre in (x - half, x + half - 0.24):
            self.front((tyre, tyre + 0.24), (0, 0.4), z, (24, 24, 26), "car")
        self.front((x - half, x + half), (0.22, 0.92), z, tone(colour, 0.86), "car")
        self.front((x - half, x + half), (0.22, 0.42), z, (44, 44, 48))
        self.front((x - 0.26, x + 0.26), (0.5, 0.62), z, (226, 226, 220))
        for lamp in (x - half + 0.04, x + half - 0.3):
            self.front((lamp, lamp + 0.26), (0.66, 0.82), z, (176, 36, 34) if ahead else (244, 240, 216))

    def _truck(self, x: float, z: float, colour: Colour, ahead: bool) -> None:
        self._box_on_wheels(x, z, (2.4, 3.2, 7.5), (206, 204, 198) if ahead else colour, "truck")
        self.front((x - 1.0, x + 1.0), (1.2, 3.0) if ahead else (1.6, 2.5), z, (178, 178, 174) if ahead else GLASS)

    def _bus(self, x: float, z: float, _: Colour, ahead: bool) -> None:
        self._box_on_wheels(x, z, (2.5, 3.0, 11), BUS, "bus")
        inner = x - 1.26 if x > 0 else x + 1.26
        self.side(inner, (1.35, 2.4), (z + 0.3, z + 10.6), GLASS)
        self.front((x - 1.1, x + 1.1), (1.3 if ahead else 1.0, 2.5), z, GLASS)
        self.front((x - 0.8, x + 0.8), (2.6, 2.85), z, (236, 178, 60))

    def _box_on_wheels(self, x: float, z: float, sizes: Point, colour: Colour, label: str) -> None:
        (_, height, long), half = sizes, sizes[0] / 2
        inner = x - half if x > 0 else x + half
        self.floor((x - half - 0.2, x + half + 0.2), (z - 0.3, z + long), tone(ASPHALT, 0.45))
        for at in (z + 1.2, z + long - 1.4):
            self.side(inner, (0, 0.9), (at - 0.5, at + 0.5), (24, 24, 26), label)
        self.side(inner, (0.4, height), (z, z + long), colour, label)
        for tyre in (x - half + 0.1, x + half - 0.4):
            self.front((tyre, tyre + 0.3), (0, 0.6), z, (24, 24, 26), label)
        self.front((x - half, x + half), (0.4, height), z, tone(colour, 0.86), label)
        for lamp in (x - half + 0.1, x + half - 0.4):
            self.front((lamp, lamp + 0.3), (0.6, 0.8), z, (176, 36, 34) if x > 0 else (244, 240, 216))

    def _person(self, x: float, z: float, colour: Colour, label: str = "person", seat: float = 0.0) -> None:
        for leg in (-0.16, 0.03):
            self.front((x + leg, x + leg + 0.14), (seat, seat + 0.85), z, (46, 48, 58), label)
        self.ball((x, seat + 1.12, z), 0.25, colour, label, stretch=1.5)
        self.ball((x, seat + 1.6, z), 0.13, (206, 164, 138), label, stretch=1.2)
        self.ball((x, seat + 1.68, z), 0.12, (58, 44, 36), label, stretch=0.6)

    def _bicycle(self, x: float, z: float, ridden: bool) -> None:
        if ridden:
            self._person(x, z, CLOTHES[int(7 * z) % len(CLOTHES)], "rider", 0.3)
        self.ball((x, 0.36, z), 0.09, (30, 30, 32), "bicycle", stretch=4)
        self.front((x - 0.3, x + 0.3), (1.0, 1.07), z, (40, 40, 44), "bicycle")
        self.front((x - 0.05, x + 0.05), (0.5, 1.05), z, (150, 50, 46), "bicycle")

    def _ego_vehicle(self) -> None:
        """Draw the bonnet of the car with the camera."""
        width, height = 2 * self.height, self.height
        box = (0.12 * width, 0.935 * height, 0.88 * width, 1.3 * height)
        self._draw.ellipse(box, fill=(36, 38, 42))
        self._draw.arc(
            (box[0], box[1] + 0.004 * height, box[2], box[3]), 180, 360, (96, 100, 106), round(0.006 * height)
        )
        self._mark.ellipse(box, fill=EGO_VEHICLE)

    def render(self, height: int) -> tuple[Picture, Ids]:
        """Return the picture with stains and the light of the weather, and the labels, both downsampled."""
        factor = self.height // height
        stains = paint.noise(self.rng, (0.02, 0.02, 0.02, 0.02, 0.025, 0.03))
        light = 1 + np.asarray(stains.resize((2 * height, height), Image.Resampling.BILINEAR))[..., None]
        picture = np.asarray(self.picture.reduce(factor)) * light * np.asarray(WEATHER.sun, np.float32)
        ids = np.asarray(self.labels)[factor // 2 :: factor, factor // 2 :: factor]
        return picture.clip(0, 255).astype(np.uint8), np.ascontiguousarray(ids)


def _ordered(one: float, other: float) -> tuple[float, float]:
    return (one, other) if one < other else (other, one)
