"""Plans of procedural facades: label maps in the colours of CMP Facades and matching pictures, from a seed.

A plan is in unit coordinates, so a building is the same at every size. Its family (Parisian stone, brick, plaster)
decides shapes, which the label map shows, and materials, which it does not: a network can learn one from the other.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from imtrans.checks import one_of
from imtrans.data.facades import paint
from imtrans.data.facades.paint import LABELS as LABELS
from imtrans.data.facades.paint import THIN, Box, Canvas, Colour, Courses, Look, Pane, Picture, Weather, tone
from imtrans.data.procedural import check_drawing

DOORS = ((34, 62, 54), (112, 32, 36), (30, 46, 78), (86, 54, 38), (44, 46, 50))
SHUTTERS = ((84, 120, 106), (92, 118, 146), (124, 84, 62), (110, 134, 92))
WEATHERS = {
    "clear": Weather((98, 150, 208), (196, 217, 235), (250, 250, 250), (1.03, 1.0, 0.95), (0.50, 0.54, 0.66), 0.04),
    "golden": Weather((128, 158, 196), (244, 214, 178), (255, 238, 214), (1.08, 0.97, 0.82), (0.48, 0.48, 0.62), 0.10),
    "overcast": Weather((172, 184, 197), (222, 226, 230), (236, 238, 240), (0.95, 0.97, 1.0), (0.70, 0.73, 0.79), 0.06),
    "dusk": Weather((84, 98, 146), (236, 178, 150), (226, 164, 158), (0.84, 0.77, 0.80), (0.55, 0.53, 0.66), 0.45),
}
NIGHT = Weather(
    (70, 82, 140), (190, 150, 190), (120, 116, 160), (0.28, 0.31, 0.46), (0.78, 0.80, 0.86), 0.0, night=True
)


class Family(NamedTuple):
    """The materials and shapes that buildings of one kind share."""

    walls: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    stone: Courses
    slates: Courses
    window: tuple[float, float]  # width / height, and height / height of the storey
    roof_height: tuple[float, float]
    balconies: tuple[float, float, float]  # probabilities: none, one at each window, along the whole front
    trim: Colour | None = None
    arched: bool = False
    shutters: bool = False
    dormers: bool = False


PARISIAN = Family(
    walls=((216, 203, 176), (224, 213, 192), (204, 192, 168), (228, 216, 188)),
    roofs=((112, 122, 134), (98, 106, 118), (126, 134, 142)),
    stone=Courses(0.03, 0.085, 0.03, 0.13),
    slates=Courses(0.013, 0.026, 0.05, 0.1),
    window=(0.56, 0.7),
    roof_height=(0.115, 0.165),
    balconies=(0.15, 0.5, 0.35),
    dormers=True,
)
BRICK = Family(
    walls=((172, 100, 76), (184, 116, 88), (152, 88, 72), (192, 140, 108)),
    roofs=((196, 186, 168), (120, 112, 106)),
    stone=Courses(0.0105, 0.032, 0.08, 0.2),
    slates=Courses(0.5, 0.5, 0, 0),
    window=(0.62, 0.62),
    roof_height=(0.028, 0.04),
    balconies=(1, 0, 0),
    trim=(222, 212, 192),
    arched=True,
)
PLASTER = Family(
    walls=((234, 200, 146), (226, 176, 136), (238, 224, 198), (216, 160, 136), (196, 202, 190)),
    roofs=((180, 100, 70), (166, 88, 64), (190, 116, 82)),
    stone=Courses(0.5, 0.5, 0, 0),
    slates=Courses(0.011, 0.013, 0.09, 0.22),
    window=(1.0, 0.57),
    roof_height=(0.06, 0.085),
    balconies=(0.7, 0.3, 0),
    trim=(242, 236, 224),
    shutters=True,
)


class Plan(NamedTuple):
    """One building, in unit coordinates from the upper left corner of the picture."""

    family: Family
    look: Look
    weather: Weather
    sun: int
    sides: tuple[float, float]
    levels: tuple[float, ...]  # top of the roof, eaves, lower edges of the floors, street
    bays: tuple[float, ...]  # left and right edges
    balconies: tuple[int, ...]  # by floor: 0, 1 or 2, as in Family.balconies
    door_bay: int
    shops: bool


def draw_facade(seed: int, index: int, size: int, *, weather: str | None = None) -> tuple[Picture, Picture]:
    """Draw building `index` of the series `seed`: the photo and the labels, uint8 ``(size, size, 3)``.

    The building does not depend on `size`. Each pixel of the labels has a colour of `LABELS`. With a `weather`, one of
    `WEATHERS`, the light is that weather's and comes from the left. None draws weather and side for each building.

    Raises:
        ArgumentError: a `seed` or `index` below 0, a `size` below 16, one that is not an integer, or an unknown
            `weather`.

    >>> photo, labels = draw_facade(0, 7, 64)
    >>> photo.shape, photo.dtype, labels.shape
    ((64, 64, 3), dtype('uint8'), (64, 64, 3))
    """
    check_drawing("draw_facade", seed=seed, index=index, size=size)
    rng = np.random.default_rng((seed, index))
    plan = _plan(rng)
    if weather is not None:
        plan = plan._replace(weather=WEATHERS[one_of("draw_facade", "weather", weather, WEATHERS)], sun=1)
    return _drawn(plan, rng, size).render(size, plan.weather)


def draw_day_and_night(seed: int, index: int, size: int) -> tuple[Picture, Picture]:
    """Draw building `index` of `draw_facade`, by day and by night: uint8 ``(size, size, 3)`` each.

    There are street lamps, and curtains are closed. By night, windows with curtains, shops and lamps are lit.

    Raises:
        ArgumentError: as `draw_facade`.
    """
    check_drawing("draw_day_and_night", seed=seed, index=index, size=size)
    lamps = np.random.default_rng((seed, index, 1)).uniform((0.1, 0.6), (0.4, 0.9))
    pictures = []
    for night in (False, True):
        rng = np.random.default_rng((seed, index))
        plan = _plan(rng)
        weather = NIGHT._replace(lit=plan.weather.lit) if night else plan.weather
        plan = plan._replace(weather=weather._replace(closed=True))
        canvas = _drawn(plan, rng, size)
        for x in lamps:
            paint.street_lamp(canvas, x)
        pictures.append(canvas.render(size, plan.weather)[0])
    return pictures[0], pictures[1]


def _drawn(plan: Plan, rng: np.random.Generator, size: int) -> Canvas:
    """Draw the building on a canvas that is several times as large as `size`."""
    canvas = Canvas(size * max(2, -(-384 // size)), plan.sun, night=plan.weather.night)
    panes = paint.glass(rng, plan.weather)
    _surroundings(canvas, plan, rng)
    _roof(canvas, plan, rng)
    _wall(canvas, plan, rng)
    _dormers(canvas, plan, panes)
    _floors(canvas, plan, panes)
    _ground_floor(canvas, plan, panes)
    return canvas


def _plan(rng: np.random.Generator) -> Plan:
    """Draw the shapes, materials and weather of a building at random."""
    family = (PARISIAN, BRICK, PLASTER)[rng.choice(3, p=(0.45, 0.28, 0.27))]
    left, right = rng.uniform(0.03, 0.09, 2) * (rng.random(2) < 0.22)
    top, storeys, street = rng.uniform(0.1, 0.19), int(rng.choice((3, 4, 5), p=(0.4, 0.4, 0.2))), 0.97
    eaves, ground = top + rng.uniform(*family.roof_height), street - rng.uniform(0.165, 0.2)
    heights = np.linspace(1, rng.uniform(1, 1.25), storeys)
    lines = eaves + (ground - eaves) * heights.cumsum() / heights.sum()
    bays = _rhythm(rng, left, 1 - right, family.window[0] * family.window[1] * (ground - eaves) / storeys)
    return Plan(
        family=family,
        look=_look(rng, family),
        weather=tuple(WEATHERS.values())[rng.choice(len(WEATHERS), p=(0.4, 0.25, 0.2, 0.15))],
        sun=int(rng.choice((-1, 1))),
        sides=(float(left), float(1 - right)),
        levels=(float(top), float(eaves), *(float(y) for y in lines), street),
        bays=bays,
        balconies=tuple(int(b) for b in rng.choice(3, storeys, p=family.balconies)),
        door_bay=int(rng.integers(len(bays) - 1) if rng.random() < 0.5 else (len(bays) - 1) // 2),
        shops=bool(rng.random() < 0.6),
    )


def _rhythm(rng: np.random.Generator, left: float, right: float, opening: float) -> tuple[float, ...]:
    """Divide the front into bays: equal, with a wide one in the middle, or alternately wide and narrow."""
    room = right - left - 0.04
    count = int(np.clip(round(room / (opening * rng.uniform(1.7, 2.5))), 3, 7))
    widths = np.ones(count)
    widths[1::2] *= rng.choice((1, 1, 0.8))
    widths[count // 2 : -(count // 2)] *= rng.choice((1, 1.35))
    return tuple(left + 0.02 + room * float(x) for x in (0, *(widths.cumsum() / widths.sum())))


def _look(rng: np.random.Generator, family: Family) -> Look:
    def pick(colours: tuple[Colour, ...]) -> Colour:
        return tone(colours[rng.integers(len(colours))], rng.uniform(0.94, 1.06))

    wall = pick(family.walls)
    trim = tone(wall, 1.08) if family.trim is None else pick((family.trim,))
    return Look(wall, trim, pick(family.roofs), pick((paint.CREAM,)), pick(SHUTTERS), pick(DOORS), pick(DOORS))


def _surroundings(canvas: Canvas, plan: Plan, rng: np.random.Generator) -> None:
    """Paint the sky, the pavement, and the neighbouring houses."""
    canvas.paste(paint.sky(rng, canvas.side, plan.weather), (0, 0, 1, 1))
    canvas.box((0, 0, 1, 1), label="sky")
    (left, right), street = plan.sides, plan.levels[-1]
    for x0, x1 in ((0.0, left), (right, 1.0)):
        top = rng.uniform(0.2, 0.5)
        if x1 > x0:
            canvas.box((x0, top, x1, 1), tone(plan.look.wall, 0.72), label="unknown")
            canvas.box((x0, top, x1, top + 0.015), tone(plan.look.wall, 0.5))
    canvas.box((0, street, 1, 1), (150, 147, 142), label="unknown")
    canvas.box((0, 0.987, 1, 1), (96, 96, 100))


def _roof(canvas: Canvas, plan: Plan, rng: np.random.Generator) -> None:
    """Paint the chimneys and the roof."""
    (left, right), (top, eaves), colour = plan.sides, plan.levels[:2], plan.look.roof
    for x in rng.choice(np.arange(left + 0.06, right - 0.06, 0.09), rng.integers(1, 4), replace=False):
        half, crown = rng.uniform(0.018, 0.032), top - rng.uniform(0.03, 0.055)
        canvas.box((x - half, crown, x + half, eaves), (172, 118, 94), label="roof")
        dark = (x, x + half) if plan.sun > 0 else (x - half, x)
        canvas.box((dark[0], crown, dark[1], eaves), (132, 90, 76))
        canvas.box((x - half - 0.003, crown, x + half + 0.003, crown + 0.007), (206, 190, 166))
        for pot in np.arange(x - half + 0.004, x + half - 0.008, 0.012):
            canvas.box((pot, crown - 0.013, pot + 0.008, crown), (186, 104, 72), label="roof")
    slates = paint.masonry(rng, (canvas.side, int(0.4 * canvas.side)), colour, plan.family.slates)
    inset = 0.3 * (eaves - top)
    upper = (left + inset * (left > 0), right - inset * (right < 1))
    canvas.slope(slates, ((upper[0], top), (upper[1], top), (right, eaves), (left, eaves)), "roof")
    canvas.box((upper[0], top, upper[1], top + 2 * THIN), tone(colour, 1.25))


def _wall(canvas: Canvas, plan: Plan, rng: np.random.Generator) -> None:
    """Paint the front with cornices and corner stones."""
    trim, (left, right), lines = plan.look.trim, plan.sides, plan.levels[1:-1]
    front = (left, lines[0], right, plan.levels[-1])
    canvas.box(front, label="wall")
    canvas.paste(paint.masonry(rng, (canvas.side, canvas.side), plan.look.wall, plan.family.stone), front)
    if plan.family.trim is not None:
        for i, y in enumerate(np.arange(lines[0], lines[-1], 0.022)):
            long = (0.02, 0.03)[i % 2]
            for x0, x1 in ((left, left + long), (right - long, right)):
                canvas.box((x0, y, x1, y + 0.02), tone(trim, 0.96))
    for y, depth in ((lines[0], 0.026), *((y, 0.009) for y in lines[1:-1]), (lines[-1], 0.018)):
        canvas.relief((left, y - 0.3 * depth, right, y + 0.4 * depth), tone(trim, 1.04), depth)
        canvas.box((left, y + 0.25 * depth, right, y + 0.4 * depth), tone(trim, 0.84))
    canvas.box((0, 0, left, 1), light=255)
    canvas.box((right, 0, 1, 1), light=255)
    for x in np.arange(left + 0.006, right - 0.008, 0.021):
        canvas.box((x, lines[0] + 0.01, x + 0.01, lines[0] + 0.019), tone(trim, 0.95))


def _openings(plan: Plan, storey: int) -> Iterator[Box]:
    """Yield the windows of a storey; a window with a balcony reaches down to it."""
    y0, y1 = plan.levels[1 + storey : 3 + storey]
    height = plan.family.window[1] * (y1 - y0)
    top = y0 + 0.18 * (y1 - y0)
    bottom = y1 - 0.08 * (y1 - y0) if plan.balconies[storey] else top + height
    for x0, x1 in zip(plan.bays[:-1], plan.bays[1:], strict=True):
        middle, half = (x0 + x1) / 2, 0.5 * min(plan.family.window[0] * height, 0.76 * (x1 - x0))
        yield middle - half, top, middle + half, bottom


def _dormers(canvas: Canvas, plan: Plan, panes: Iterator[Pane]) -> None:
    """Paint the windows of a mansard roof, one above each bay."""
    (top, eaves), look = plan.levels[:2], plan.look
    for left, _, right, _ in _openings(plan, 0) if plan.family.dormers else ():
        x0, x1 = left + 0.1 * (right - left), right - 0.1 * (right - left)
        y0, y1 = top + 0.36 * (eaves - top), eaves - 0.16 * (eaves - top)
        canvas.relief((x0 - 0.011, y0 - 0.014, x1 + 0.011, eaves - 0.01), look.trim, 0.012)
        paint.window(canvas, (x0, y0, x1, y1), look, next(panes), arched=False, shutters=False)
        canvas.relief((x0 - 0.016, y0 - 0.02, x1 + 0.016, y0 - 0.009), tone(look.roof, 0.8), 0.006)


def _floors(canvas: Canvas, plan: Plan, panes: Iterator[Pane]) -> None:
    """Paint the windows and balconies of the upper floors."""
    arched, shutters = plan.family.arched, plan.family.shutters
    for storey, kind in enumerate(plan.balconies):
        railings = []
        for box in _openings(plan, storey):
            paint.window(canvas, box, plan.look, next(panes), arched=arched, shutters=shutters)
            rail = box[3] - 0.3 * (box[3] - box[1])
            railings.append((box[0] - 0.012, rail, box[2] + 0.012, box[3] + 0.004))
        if kind == 2:
            railings = [(plan.sides[0] + 0.012, rail, plan.sides[1] - 0.012, plan.levels[2 + storey])]
        for railing in railings if kind else ():
            paint.balcony(canvas, railing, plan.look)


def _ground_floor(canvas: Canvas, plan: Plan, panes: Iterator[Pane]) -> None:
    """Paint the door, with shops or windows on both sides."""
    look, bays, at, (ground, street) = plan.look, plan.bays, plan.door_bay, plan.levels[-2:]
    arched = plan.family.arched or not plan.shops
    middle, half = (bays[at] + bays[at + 1]) / 2, min(0.05, 0.36 * (bays[at + 1] - bays[at]))
    entry = (middle - half, ground + 0.045, middle + half, street)
    paint.door(canvas, entry, look, next(panes), arched=arched)
    for first, last in ((0, at), (at + 1, len(bays) - 1)) if plan.shops else ():
        if last > first:
            front = (bays[first] + 0.008, ground + 0.022, bays[last] - 0.008, street)
            paint.shop(canvas, front, look)
    for bay, (left, _, right, _) in enumerate(_openings(plan, 0)):
        if bay != at and not plan.shops:
            middle, half = (left + right) / 2, min(0.035, (right - left) / 2)
            box = (middle - half, ground + 0.045, middle + half, street - 0.05)
            paint.window(canvas, box, look, next(panes), arched=arched, shutters=False)
