"""The gallery: a page with samples, losses and validations of a run. It needs no server, no network and no script."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from imtrans.checks import at_least
from imtrans.errors import DataError
from imtrans.files import read_file, write_atomic
from imtrans.training.report.image_grid import image_grid_header

Line = tuple[int, dict[str, Any]]  # step, fields
Point = tuple[int, float | None]  # step, loss (None if it cannot be drawn)

# A file with thousands of names must not make an endless page.
MAX_POINTS, MAX_CURVES, MAX_COLUMNS, MAX_ROWS, MAX_INDENTED = 300, 60, 60, 1000, 10_000
LARGEST = 1e30  # sums of such values are still finite
PLOT = {"width": 352, "height": 172, "left": 52, "right": 344, "top": 12, "middle": 80, "bottom": 148}
ARROWS = {  # direction of better values
    **dict.fromkeys(("l1", "swd", "texture", "layout", "gmsd", "ciede2000"), "↓"),
    **dict.fromkeys(("psnr", "ssim", "ms_ssim", "iou"), "↑"),
}


def write_gallery(folder: str | os.PathLike[str], *, newest: int = 8) -> Path:
    """Write ``folder/index.html`` from the files of a run, and return its path.

    Reads ``config.json``, ``metrics.jsonl`` and the `newest` images in ``samples/`` with the highest step numbers. Data
    that is absent or cannot be read is left out: a run may be killed while it writes.

    Raises:
        ArgumentError: `newest` is not an integer of at least 1.
        DataError: `folder` is not a folder.
    """
    newest = at_least("write_gallery", "newest", newest, 1)
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"write_gallery: {str(root)!r} is not a folder. Give the one a Trainer wrote to.")
    config, config_text = _read_config(root / "config.json")
    train, validation = _read_metrics(root / "metrics.jsonl")
    page = _template().render(
        run=root.resolve().name,
        method=_text(config.get("method")) or "Training run",
        facts=_facts(config, train),
        command=_text(config.get("command")),
        samples=_samples(root / "samples", newest),
        charts=[_chart(name, curve) for name, curve in _curves(train).items()],
        plot=PLOT,
        modes=_modes(validation),
        validations=validation[: -MAX_ROWS - 1 : -1],
        config_text=config_text,
    )
    # JSON and file names may hold lone surrogates, which UTF-8 cannot encode.
    write_atomic(root / "index.html", page.encode("utf-8", "replace"))
    return root / "index.html"


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=folder)
    environment.filters.update(arrow=_arrow, metric=_metric, short=_short, text=_text, thousands="{:,}".format)
    return environment.get_template("gallery.html.j2")


def _read(path: Path) -> str:
    with suppress(OSError):
        return read_file(path).decode("utf-8", "replace")
    return ""


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the configuration, and the text to show; empty without a file, and only the text if it is no JSON."""
    config, text = None, _read(path).strip()
    with suppress(ValueError, RecursionError):
        config = json.loads(text)
        if isinstance(config, dict) and config.pop("files", None):
            text = json.dumps(config)  # without a list of perhaps thousands of names
        # Indenting deeply nested entries would multiply the length of the text.
        text = json.dumps(config, indent=2, ensure_ascii=False) if len(text) <= MAX_INDENTED else text
    return (config if isinstance(config, dict) else {}), text


def _read_metrics(path: Path) -> tuple[list[Line], list[Line]]:
    """Return the training and the validation lines, by increasing step."""
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
        # A resumed run repeats the steps since its checkpoint. Its lines replace the earlier ones.
        while lines and lines[-1][0] >= step:
            lines.pop()
        lines.append((step, fields))
    return kinds["train"], kinds["validation"]


def _number(value: object) -> float | None:
    """Return a number that can be drawn as a float, and None for any other value."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    return None


def _text(value: object) -> str:
    """Return a string or a number as text, and an empty string for any other value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:#.4g}".rstrip(".")


def _facts(config: Mapping[str, Any], train: Sequence[Line]) -> dict[str, str]:
    step, line = train[-1] if train else (0, {})
    epoch, epochs = line.get("epoch"), _text(config.get("epochs"))
    epoch = _text(epoch + 1 if type(epoch) is int else epoch)  # logged from 0, shown from 1
    facts = {
        "Step": f"{step:,}" if train else "",
        "Epoch": f"{epoch or 1} of {epochs}" if epochs else epoch,
        "Images / s": _text(line.get("images_per_second")),
        "Learning rate": _text(line.get("lr")),
        **{name.title(): _text(config.get(name)) for name in ("recipe", "size", "seed", "version", "data")},
    }
    return {name: value for name, value in facts.items() if value}


def _samples(folder: Path, newest: int) -> list[dict[str, Any]]:
    """Return the newest sample grids, with the sizes in their headers: the page reserves their space."""
    steps = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdecimal() and path.is_file()}
    samples = []
    for step, path in sorted(steps.items(), reverse=True)[:newest]:
        width, height, columns = image_grid_header(path)
        size = {"width": max(1, width), "height": max(1, height)}
        samples.append({"step": step, "link": f"samples/{quote(path.name)}", "columns": columns.split(", "), **size})
    return samples


def _curves(train: Sequence[Line]) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for step, fields in train:
        losses = fields.get("losses")
        for name, value in losses.items() if isinstance(losses, dict) else ():
            if name in curves or len(curves) < MAX_CURVES:
                curves.setdefault(name, []).append((step, _number(value)))
    return curves


def _chart(name: str, curve: Sequence[Point]) -> dict[str, Any]:
    """Return the labels of a chart, and the SVG paths of the raw and the smoothed curve; none without values."""
    values = [value for _, value in curve if value is not None]
    chart: dict[str, Any] = {"name": name, "count": len(curve), "missing": len(curve) - len(values), "raw": ""}
    if values:
        scale = curve[0][0], curve[-1][0], min(values), max(values)
        smooth, (first, last, low, high) = _smooth(curve), scale
        chart.update(first=first, last=last, low=low, high=high, now=smooth[-1][1])
        chart.update(raw=_path(_thin(curve), *scale), smooth=_path(smooth, *scale))
        levels = {"top": high, "middle": (low + high) / 2, "bottom": low} if low < high else {"middle": low}
        chart["levels"] = {PLOT[place]: value for place, value in levels.items()}
    return chart


def _thin(curve: Sequence[Point]) -> Sequence[Point]:
    """Return the first point, the last, and the lowest and highest of each stretch between them."""
    thinned, last = [curve[0]], len(curve) - 1
    stretch = max(1, math.ceil((last - 1) / (MAX_POINTS // 2 - 1)))
    for start in range(1, last, stretch):
        points = curve[start : min(start + stretch, last)]
        drawn = [(value, step) for step, value in points if value is not None]
        thinned += sorted((s, v) for v, s in {min(drawn), max(drawn)}) if drawn else points[:1]
    return [*thinned, curve[last]]


def _smooth(curve: Sequence[Point]) -> list[Point]:
    """Return, for at most a few hundred points, the mean over the 8 % of the curve around each."""
    reach, last, smooth = max(1, len(curve) // 25), len(curve) - 1, []
    for i in [*range(0, last, math.ceil(len(curve) / MAX_POINTS)), last]:
        near = [value for _, value in curve[max(0, i - reach) : i + reach + 1] if value is not None]
        smooth.append((curve[i][0], sum(near) / len(near) if near else None))
    return smooth


def _path(points: Sequence[Point], first: int, last: int, low: float, high: float) -> str:
    """Return the SVG path of a curve, with a gap at each missing value."""
    path, pen = "", "M"
    for step, value in points:
        if value is not None:
            x, y = _scale(step, first, last, "left", "right"), _scale(value, low, high, "bottom", "top")
            # The line of length 0 draws a lone point as a dot.
            path += f"M{x:.1f} {y:.1f}h0" if pen == "M" else f"L{x:.1f} {y:.1f}"
        pen = "M" if value is None else "L"
    return path


def _scale(value: float, low: float, high: float, start: str, end: str) -> float:
    return PLOT[start] + (PLOT[end] - PLOT[start]) * ((value - low) / (high - low) if high > low else 0.5)


def _modes(lines: Sequence[Line]) -> dict[str, dict[str, float | None]]:
    """Return the metrics of each mode, with their best values; None where there is no best."""
    best: dict[str, dict[str, float | None]] = {}
    for _, fields in lines:
        for mode, metrics in fields.items():
            for metric, value in metrics.items() if isinstance(metrics, dict) else ():
                if metric not in best.get(mode, {}) and sum(map(len, best.values())) >= MAX_COLUMNS:
                    continue
                so_far, number = best.setdefault(mode, {}).setdefault(metric, None), _number(value)
                better = {"↓": min, "↑": max}.get(_arrow(metric))
                if better and number is not None:
                    best[mode][metric] = number if so_far is None else better(so_far, number)
    return best


def _arrow(metric: str) -> str:
    """Return the direction of better values; the name may begin with a translation's, as in ``to_target_l1``."""
    return ARROWS.get(metric.lower().rpartition("_")[2], "")


def _metric(fields: Mapping[str, Any], mode: str, metric: str) -> float | None:
    metrics = fields.get(mode)
    return _number(metrics.get(metric)) if isinstance(metrics, dict) else None
