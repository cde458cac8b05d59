"""Measure how soon a recipe reaches the scores that the recipe of the paper has after a whole run.

python examples/speedrun.py                             # procedural facades
python examples/speedrun.py --data DIR --direction BtoA --segmenter runs/segmenter --seeds 0 1

It trains the recipe "paper" for --epochs, then --recipe for each number of --tries, until all scores are reached: the
FCN-score's IoU, and the Fréchet distances of the segmenter's features. Each run has a schedule of its own.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from train_segmenter import fit, load, pairs, read_palette, score, translations

from imtrans import PairedImages, Trainer, frechet_distance, recipe
from imtrans.checks import at_least
from imtrans.cli.train.flags import given
from imtrans.cli.train.run import main
from imtrans.data.loader import batches
from imtrans.errors import counted
from imtrans.methods.recipes import RECIPES
from imtrans.runtime import pick_device

HIGHER = {"iou": True, "texture": False, "layout": False}  # whether higher is better
Row = dict[str, float]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pairs in train/ and val/ (procedural facades)")
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="BtoA: B is the source")
    parser.add_argument("--recipe", choices=[*RECIPES], default="sharp", help="the recipe that is timed (sharp)")
    parser.add_argument("--epochs", type=int, help="epochs of the recipe paper (40; 10 for procedural facades)")
    parser.add_argument("--tries", type=int, nargs="+", help="epochs of the timed recipe (an eighth to all of them)")
    parser.add_argument("--batch-size", type=int, help="of the timed recipe (the recipe's)")
    parser.add_argument("--lr", type=float, help="of the timed recipe (the recipe's)")
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
    tries = sorted(set(given(args.tries, [max(1, epochs // n) for n in (8, 4, 2, 1)])))
    plain, val = pairs(args.data, args.direction, args.size, 0)
    if args.segmenter:
        segmenter, palette = load(args.segmenter, device)
    else:
        palette = read_palette(args.palette)
        segmenter = fit(plain, palette, epochs=given(args.segmenter_epochs, 60 if real else 4), device=device)

    def scored(name: str, epochs: int, seed: int, **arguments: Any) -> Row:
        trainer, seconds = train(name, epochs, seed, args, **arguments)
        with trainer.averaged():
            photos = list(translations(trainer.method.generator, val, device, "batch_stats"))
        found = frechet_distance(photos, (batch["target"] for batch in batches(val, 1)), segmenter)
        row = {"seconds": seconds, "epochs": epochs, "iou": score(photos, val, segmenter, palette)["iou"], **found}
        print(f"seed {seed}  {name:<6} {format_row(row)}", flush=True)
        return row

    results = []
    for seed in args.seeds:
        paper = scored("paper", epochs, seed)
        own: dict[str, Any] = {name: getattr(args, name) for name in ("batch_size", "lr") if getattr(args, name)}
        tried: list[Row] = []
        for each in tries:
            tried.append(scored(args.recipe, each, seed, **own))
            if reaches(tried[-1], paper):
                break
        results.append({"seed": seed, "recipe": args.recipe, "paper": paper, "tries": tried})
        print(verdict(tried[-1], paper, args.recipe))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2))


def train(name: str, epochs: int, seed: int, args: argparse.Namespace, **own: Any) -> tuple[Trainer, float]:
    """Train a recipe; return its trainer, and the seconds of all steps, without the decoding of images."""
    method, settings = recipe(name, size=args.size, base_channels=args.base_channels, seed=seed, device=args.device)
    if args.data:  # with the jitter of the paper, which the segmenter trains without
        data = PairedImages(args.data / "train", direction=args.direction, size=args.size, seed=seed)
    else:
        data, _ = pairs(None, args.direction, args.size, seed)
    times: list[float] = []

    def note_time(trainer: Trainer, losses: dict[str, Tensor]) -> None:
        if trainer.step in (1, trainer.total_steps):
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            times.append(perf_counter())

    shared = {"precision": args.precision, "device": args.device, "on_step_end": note_time, "out": None}
    trainer = Trainer(method, data, epochs=epochs, **shared, **{**settings, **own})
    trainer.fit()
    # The first step also warms up: it counts as the mean of the others.
    return trainer, (times[-1] - times[0]) * trainer.total_steps / max(1, trainer.total_steps - 1)


def reaches(row: Row, goal: Row) -> bool:
    """Whether each score of `row` is at least as good as in `goal`."""
    return all((row[name] >= goal[name]) if higher else (row[name] <= goal[name]) for name, higher in HIGHER.items())


def format_row(row: Row) -> str:
    scores = "  ".join(f"{name} {row[name]:.3g}" for name in HIGHER)
    return f"{row['epochs']:4.0f} epochs  {row['seconds']:8.1f} s  {scores}"


def verdict(row: Row, goal: Row, name: str) -> str:
    if not reaches(row, goal):
        return f"{name} did not reach the scores of paper in {counted(round(row['epochs']), 'epoch')}"
    return f"{name} reaches the scores of paper in {row['seconds'] / goal['seconds']:.2f} times its time"


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
