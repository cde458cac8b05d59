"""The gallery: one page that shows how a training run fares, opened from disk.

The page needs the run's folder and nothing else: no server, no network, no script. What it shows was
written by a run that may have been killed at any instant, so whatever cannot be read is left out.
"""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from urllib.parse import quote

from imtrans.checks import at_least
from imtrans.errors import DataError
from imtrans.files import read_file, write_atomic
from imtrans.training.report.gallery_page import PAGE
from imtrans.training.report.image_grid import image_grid_header

Line = tuple[int, dict[str, object]]  # step, fields
Point = tuple[int, float | None]  # step, and a loss if it can be drawn

MOST_POINTS = 300  # a chart is about as many pixels wide
MOST_CURVES, MOST_COLUMNS, MOST_ROWS = 60, 60, 1000  # a file of nothing but names would make a page without end
LONGEST_INDENTED = 10_000
LARGEST = 1e30  # sums and spans of such values are still finite
LEFT, RIGHT, TOP, MIDDLE, BOTTOM = 52, 344, 12, 80, 148  # the plot within the chart's 352 x 172 units
ARROWS = {"l1": "↓", "psnr": "↑", "ssim": "↑", "iou": "↑"}  # where the better values lie


def write_gallery(folder: str | os.PathLike[str], *, newest: int = 8) -> Path:
    """Write ``folder/index.html`` from what a run's folder holds, and return its path.

    Reads ``config.json``, ``metrics.jsonl`` and the `newest` images of ``samples/`` with the highest step
    numbers, each of which may be absent. The page takes the old one's place whole.

    Raises:
        ArgumentError: `newest` is no whole number of at least 1.
        DataError: `folder` is no folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_gallery(folder).name
    'index.html'
    """
    newest = at_least("write_gallery", "newest", newest, 1)
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"write_gallery: {str(root)!r} is not a folder. Give the one a Trainer wrote to.")
    # JSON and file names may hold lone surrogates, which UTF-8 has no bytes for.
    write_atomic(root / "index.html", _page(root, newest).encode("utf-8", "replace"))
    return root / "index.html"


def _page(root: Path, newest: int) -> str:
    config, config_text = _read_config(root / "config.json")
    train, validation = _read_metrics(root / "metrics.jsonl")
    body = _samples(root / "samples", newest) + _losses(train) + _validation(validation)
    body = body or '<p class="empty">Nothing has been logged yet. Reload this page in a while.</p>'
    if config_text:
        body += f"<details><summary>Configuration</summary><pre>{escape(config_text)}</pre></details>"
    run, method = root.resolve().name, _text(config.get("method")) or "Training run"
    header = f"<p>{escape(run)}</p><h1>{escape(method)}</h1>{_facts(config, train)}"
    return PAGE.substitute(title=escape(f"{method} · {run}"), header=header, body=body)


def _read(path: Path) -> str:
    with suppress(OSError):
        return read_file(path).decode("utf-8", "replace")
    return ""


def _read_config(path: Path) -> tuple[dict[str, object], str]:
    """Return the configuration and its text, indented if it is short; what is no JSON has only the text."""
    config, text = None, _read(path).strip()
    with suppress(ValueError, RecursionError):
        config = json.loads(text)
        # Of deeply nested entries, indenting would make a thousand times as much.
        text = json.dumps(config, indent=2, ensure_ascii=False) if len(text) <= LONGEST_INDENTED else text
    return (config if isinstance(config, dict) else {}), text


def _read_metrics(path: Path) -> tuple[list[Line], list[Line]]:
    """Return the training and the validation lines, by rising step."""
    kinds: dict[str, list[Line]] = {"train": [], "validation": []}
    for text in _read(path).split("\n"):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            continue
        step, kind = (fields.get("step"), fields.get("kind")) if isinstance(fields, dict) else (None, None)
        if type(step) is not int or not 0 <= step < 2**53 or kind not in ("train", "validation"):
            continue
        lines = kinds[kind]
        # A resumed run repeats the steps since its checkpoint; what it says replaces what was there.
        while lines and lines[-1][0] >= step:
            lines.pop()
        lines.append((step, fields))
    return kinds["train"], kinds["validation"]


def _number(value: object) -> float | None:
    """Return `value` as a float if it is a number that can be drawn (a NaN is not)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    return None


def _text(value: object) -> str:
    """Return a string or a number as text, and nothing for any other value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:#.4g}".rstrip(".")


def _section(title: str, content: str) -> str:
    name = title.lower()
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{content}</section>\n'


def _facts(config: dict[str, object], train: Sequence[Line]) -> str:
    step, line = train[-1] if train else (0, {})
    epoch, epochs = _text(line.get("epoch")), _text(config.get("epochs"))
    facts = {
        "Step": f"{step:,}" if train else "",
        "Epoch": f"{epoch or 0} of {epochs}" if epochs else epoch,
        "Images / s": _text(line.get("images_per_second")),
        "Learning rate": _text(line.get("lr")),
        **{name.title(): _text(config.get(name)) for name in ("data", "size", "seed", "version")},
    }
    tiles = "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items() if v)
    command = escape(_text(config.get("command")))
    return (f"<dl>{tiles}</dl>" if tiles else "") + (f"<p><code>{command}</code></p>" if command else "")


def _samples(folder: Path, newest: int) -> str:
    """Return the section of the newest samples, or nothing if there are none."""
    steps = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdecimal() and path.is_file()}
    figures = ""
    for step, path in sorted(steps.items(), reverse=True)[:newest]:
        # With its size from the PNG's header, an image has its place on the page before it has loaded.
        width, height, columns = image_grid_header(path)
        width, height = max(1, width), max(1, height)
        names = "".join(f"<span>{escape(name)}</span>" for name in columns.split(", "))
        newest_figure = f'<figure class="newest" style="--ratio:{width / height:.3f}"><p aria-hidden="true">{names}</p>'
        link = f"samples/{quote(path.name)}"
        figures += (
            f'{"<figure>" if figures else newest_figure}<a href="{link}"><img src="{link}" width="{width}" '
            f'height="{height}" loading="lazy" alt="Step {step:,}: rows of {escape(columns) or "pictures"}"></a>'
            f"<figcaption>Step {step:,}</figcaption></figure>"
        )
    return _section("Samples", f'<div class="grid">{figures}</div>') if figures else ""


def _losses(train: Sequence[Line]) -> str:
    """Return the section of the loss curves, or nothing if there are none."""
    curves: dict[str, list[Point]] = {}
    for step, fields in train:
        losses = fields.get("losses")
        for name, value in losses.items() if isinstance(losses, dict) else ():
            if name in curves or len(curves) < MOST_CURVES:
                curves.setdefault(name, []).append((step, _number(value)))
    charts = "".join(_chart(name, curve) for name, curve in curves.items())
    return _section("Losses", f'<div class="grid wide">{charts}</div>') if charts else ""


def _thin(curve: Sequence[Point]) -> Sequence[Point]:
    """Return the first point, the last, and between them the lowest and highest of each stretch."""
    thinned, last = [curve[0]], len(curve) - 1
    stretch = max(1, math.ceil((last - 1) / (MOST_POINTS // 2 - 1)))
    for start in range(1, last, stretch):
        points = curve[start : min(start + stretch, last)]
        drawn = [(value, step) for step, value in points if value is not None]
        thinned += sorted((s, v) for v, s in {min(drawn), max(drawn)}) if drawn else points[:1]
    return [*thinned, curve[last]]


def _smooth(curve: Sequence[Point]) -> list[Point]:
    """Return the mean over 8 % of the curve around each of at most a few hundred of its points."""
    reach, last, smooth = max(1, len(curve) // 25), len(curve) - 1, []
    for i in [*range(0, last, math.ceil(len(curve) / MOST_POINTS)), last]:
        near = [value for _, value in curve[max(0, i - reach) : i + reach + 1] if value is not None]
        smooth.append((curve[i][0], sum(near) / len(near) if near else None))
    return smooth


def _chart(name: str, curve: Sequence[Point]) -> str:
    """Return a figure with the raw curve, faint, and the smoothed one, strong."""
    values = [value for _, value in curve if value is not None]
    title, missing = escape(name), len(curve) - len(values)
    note = f'<p class="note">{missing:,} of {len(curve):,} values are not finite</p>' if missing else ""
    if not values:
        return f"<figure><figcaption>{title}</figcaption>{note}</figure>"
    first, last, low, high = curve[0][0], curve[-1][0], min(values), max(values)
    smooth = _smooth(curve)
    now = _short(smooth[-1][1])
    levels = {TOP: high, MIDDLE: (low + high) / 2, BOTTOM: low} if low < high else {MIDDLE: low}
    axes = "".join(
        f'<path class="level" d="M{LEFT} {y}H{RIGHT}"/><text x="{LEFT - 6}" y="{y + 4}">{_short(at)}</text>'
        for y, at in levels.items()
    )
    return (
        f'<figure><figcaption>{title}<b>{now}</b></figcaption><svg viewBox="0 0 352 172" role="img" '
        f'aria-label="{title} from step {first:,} to {last:,}: lowest {_short(low)}, '
        f'highest {_short(high)}, smoothed now {now}">{axes}'
        f'<text class="first" x="{LEFT}" y="{BOTTOM + 18}">step {first:,}</text>'
        f'<text x="{RIGHT}" y="{BOTTOM + 18}">{last:,}</text>'
        f'<path class="raw" d="{_path(_thin(curve), first, last, low, high)}"/>'
        f'<path class="smooth" d="{_path(smooth, first, last, low, high)}"/></svg>{note}</figure>'
    )


def _path(points: Sequence[Point], first: int, last: int, low: float, high: float) -> str:
    """Return the drawing commands of a curve that has a gap wherever a value is missing."""
    path, pen = "", "M"
    for step, value in points:
        x = LEFT + (RIGHT - LEFT) * ((step - first) / (last - first) if last > first else 0.5)
        if value is not None:
            y = BOTTOM - (BOTTOM - TOP) * ((value - low) / (high - low) if high > low else 0.5)
            # A move draws nothing: the line of no length makes a lone point visible, as a dot.
            path += f"M{x:.1f} {y:.1f}h0" if pen == "M" else f"L{x:.1f} {y:.1f}"
        pen = "M" if value is None else "L"
    return path


def _validation(lines: Sequence[Line]) -> str:
    """Return a table with a row per validation, newest first, and columns per mode; nothing if empty."""
    best: dict[str, dict[str, float | None]] = {}
    for _, fields in lines:
        for mode, metrics in fields.items():
            for metric, value in metrics.items() if isinstance(metrics, dict) else ():
                if metric not in best.get(mode, {}) and sum(map(len, best.values())) >= MOST_COLUMNS:
                    continue
                so_far, number = best.setdefault(mode, {}).setdefault(metric, None), _number(value)
                better = {"↓": min, "↑": max}.get(_arrow(metric))
                if better and number is not None:
                    best[mode][metric] = number if so_far is None else better(so_far, number)
    if not best:
        return ""
    groups, names = "", ""
    for mode, metrics in best.items():
        groups += f'<th scope="colgroup" colspan="{len(metrics)}">{escape(mode)}</th>'
        names += "".join(f'<th scope="col">{escape(m)} {_arrow(m)}</th>' for m in metrics)
    step, epoch, won = (f'<th scope="col" rowspan="2">{name}</th>' for name in ("Step", "Epoch", "Best mode"))
    rows = "".join(_row(step, fields, best) for step, fields in reversed(lines[-MOST_ROWS:]))
    return _section(
        "Validation",
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="validation"><table><thead>'
        f"<tr>{step}{epoch}{groups}{won}</tr><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p>Shaded: the mode that won. Bold: the best of the column (↓ lowest, ↑ highest) so far.</p>",
    )


def _arrow(metric: str) -> str:
    """Return where the better values of a metric lie; its name may begin with a translation's: ``to_target_l1``."""
    return ARROWS.get(metric.lower().rpartition("_")[2], "")


def _row(step: int, fields: dict[str, object], best: dict[str, dict[str, float | None]]) -> str:
    cells, winner = "", _text(fields.get("best"))
    for mode, metrics in best.items():
        found = fields.get(mode)
        for metric, top in metrics.items():
            value = _number(found.get(metric)) if isinstance(found, dict) else None
            text = f"<strong>{_short(value)}</strong>" if value == top is not None else _short(value)
            cells += f'<td class="won">{text}</td>' if mode == winner else f"<td>{text}</td>"
    epoch = escape(_text(fields.get("epoch")))
    return f'<tr><th scope="row">{step:,}</th><td>{epoch}</td>{cells}<td>{escape(winner)}</td></tr>'
