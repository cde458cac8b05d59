"""Measure how soon a recipe reaches the scores that the recipe of the paper has after a whole run.

python examples/speedrun.py                             # procedural facades
python examples/speedrun.py --data DIR --direction BtoA --segmenter runs/segmenter --seeds 0 1
python examples/speedrun.py --small 0                   # all images at full size

It trains the recipe "paper" for --epochs, then --recipe for each number of --tries, until all scores are reached: the
FCN-score's IoU, and the Fréchet distances of the segmenter's features. Each run has a schedule of its own.

A try begins with images of half the size, where a step costs less: for each epoch at full size, --small epochs before.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from train_segmenter import fit, load, pairs, read_palette, score, translations

from imtrans import PairedImages, Trainer, frechet_distance, recipe
from imtrans.checks import at_least
from imtrans.cli.train.flags import given
from imtrans.cli.train.run import main
from imtrans.data.loader import Batch, batches
from imtrans.errors import counted
from imtrans.methods.recipes import RECIPES
from imtrans.runtime import pick_device

HIGHER = {"iou": True, "texture": False, "layout": False}  # whether higher is better
Row = dict[str, float]


class Phase(NamedTuple):
    """A number of epochs with images of one size, and changes of the recipe's trainer arguments."""

    size: int
    epochs: int
    changes: dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pairs in train/ and val/ (procedural facades)")
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="BtoA: B is the source")
    parser.add_argument("--recipe", choices=[*RECIPES], default="sharp", help="the recipe that is timed (sharp)")
    parser.add_argument("--epochs", type=int, help="epochs of the recipe paper (40; 10 for procedural facades)")
    parser.add_argument("--tries", type=int, nargs="+", help="its epochs at full size (.075, .15, .3 and .6 of them)")
    parser.add_argument("--batch-size", type=int, help="of the timed recipe at full size (the recipe's)")
    parser.add_argument("--lr", type=float, help="of the timed recipe at full size (the recipe's)")
    parser.add_argument("--small", type=int, default=2, help="epochs at half the size for each at full size (2)")
    parser.add_argument("--small-batch-size", type=int, default=4, help="of the timed recipe at half the size (4)")
    parser.add_argument("--small-lr", type=float, default=4e-4, help="of the timed recipe at half the size (0.0004)")
    parser.add_argument("--size", type=int, help="height and width (256; 128 for procedural facades)")
    parser.add_argument("--base-channels", type=int, default=32, help="width of the networks (32)")
    parser.add_argument("--segmenter", type=Path, help="saved by train_segmenter.py (a new one is trained)")
    parser.add_argument("--segmenter-epochs", type=int, help="epochs of a new segmenter (60; 4 for procedural facades)")
    parser.add_argument("--palette", type=Path, help='JSON file {"wall": [0, 0, 255], ...} (CMP facades)')
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/speedrun.json"))
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    real = args.data is not None
    device = pick_device(args.device)
    args.size = given(args.size, 256 if real else 128)
    epochs = at_least("speedrun", "--epochs", given(args.epochs, 40 if real else 10), 1)
    tries = sorted(set(given(args.tries, [max(1, round(epochs * share)) for share in (0.075, 0.15, 0.3, 0.6)])))
    plain, val = pairs(args.data, args.direction, args.size, 0)
    if args.segmenter:
        segmenter, palette = load(args.segmenter, device)
    else:
        palette = read_palette(args.palette)
        segmenter = fit(plain, palette, epochs=given(args.segmenter_epochs, 60 if real else 4), device=device)

    def scored(name: str, phases: list[Phase], seed: int) -> Row:
        trainer, seconds = train(name, phases, seed, args)
        with trainer.averaged():
            photos = list(translations(trainer.method.generator, val, device, "batch_stats"))
        found = frechet_distance(photos, (batch["target"] for batch in batches(val, 1)), segmenter)
        small, large = sum(phase.epochs for phase in phases[:-1]), phases[-1].epochs
        row = {
            "seconds": seconds,
            "small_epochs": small,
            "epochs": large,
            "iou": score(photos, val, segmenter, palette)["iou"],
            **found,
        }
        print(f"seed {seed}  {name:<6} {format_row(row)}", flush=True)
        return row

    results = []
    for seed in args.seeds:
        paper = scored("paper", [Phase(args.size, epochs, {})], seed)
        tried: list[Row] = []
        for each in tries:
            tried.append(scored(args.recipe, phases_of(each, args), seed))
            if reaches(tried[-1], paper):
                break
        results.append({"seed": seed, "recipe": args.recipe, "paper": paper, "tries": tried})
        print(verdict(tried[-1], paper, args.recipe))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2))


def phases_of(epochs: int, args: argparse.Namespace) -> list[Phase]:
    """Return the phases of a try with `epochs` at full size."""
    own: dict[str, Any] = {name: getattr(args, name) for name in ("batch_size", "lr") if getattr(args, name)}
    small = {"batch_size": args.small_batch_size, "lr": args.small_lr}
    phases = [Phase(args.size // 2, args.small * epochs, small), Phase(args.size, epochs, own)]
    return phases if args.small else phases[1:]


def train(name: str, phases: list[Phase], seed: int, args: argparse.Namespace) -> tuple[Trainer, float]:
    """Train the networks of a recipe; return the last trainer, and the seconds of all steps, without the decoding."""
    # Networks for the smallest images train on larger ones too.
    networks = {"size": phases[0].size, "base_channels": args.base_channels, "seed": seed, "device": args.device}
    method, settings = recipe(name, **networks)
    times: list[float] = []

    def note_time(trainer: Trainer, losses: dict[str, Tensor]) -> None:
        if trainer.step in (1, trainer.total_steps):
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            times.append(perf_counter())

    shared = {"precision": args.precision, "device": args.device, "on_step_end": note_time, "out": None}
    seconds = 0.0
    for size, epochs, changes in phases:
        times.clear()
        trainer = Trainer(method, images(size, seed, args), epochs=epochs, **shared, **{**settings, **changes})
        trainer.fit()
        # The first step also warms up: it counts as the mean of the others.
        seconds += (times[-1] - times[0]) * trainer.total_steps / max(1, trainer.total_steps - 1)
    return trainer, seconds


def images(size: int, seed: int, args: argparse.Namespace) -> Dataset[Batch]:
    """Return the pairs for training, with the jitter of the paper, which the segmenter trains without."""
    if args.data:
        return PairedImages(args.data / "train", direction=args.direction, size=size, seed=seed)
    return pairs(None, args.direction, size, 0)[0]


def reaches(row: Row, goal: Row) -> bool:
    """Whether each score of `row` is at least as good as in `goal`."""
    return all((row[name] >= goal[name]) if higher else (row[name] <= goal[name]) for name, higher in HIGHER.items())


def format_row(row: Row) -> str:
    scores = "  ".join(f"{name} {row[name]:.3g}" for name in HIGHER)
    small = f"{row['small_epochs']:.0f} + " if row["small_epochs"] else ""
    return f"{small + format(row['epochs'], '.0f'):>8} epochs  {row['seconds']:8.1f} s  {scores}"


def verdict(row: Row, goal: Row, name: str) -> str:
    if not reaches(row, goal):
        return f"{name} did not reach the scores of paper in {counted(round(row['epochs']), 'epoch')} at full size"
    return f"{name} reaches the scores of paper in {row['seconds'] / goal['seconds']:.2f} times its time"


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
