"""What the training examples share: flags, what the trainer makes of them, and how they end."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imtrans import Trainer
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import ImtransError


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-bad-image", choices=["error", "skip"], default="error", help="skip: train without what cannot be read"
    )
    parser.add_argument("--decay-epochs", type=int, help="how many of them decay the learning rate (half)")
    parser.add_argument("--max-steps", type=int, help="end early")
    parser.add_argument("--batch-size", type=int, default=1, help="of each process")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--no-compile", action="store_true", help="do not capture the step as a CUDA graph")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-workers", type=int, default=0, help="processes that load data too large to be kept")
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="steps (a twentieth of the run, at least 100)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--push-to-hub", metavar="USER/REPO", help="push the trained networks, at the end")


def trainer_arguments(args: argparse.Namespace, *, size: int) -> dict[str, Any]:
    """The arguments of `imtrans.Trainer` that the flags give."""
    return {
        "out": args.out,
        "decay_epochs": args.decay_epochs,
        "max_steps": args.max_steps,
        "batch_size": args.batch_size,
        "precision": args.precision,
        "compile": False if args.no_compile else "auto",
        "device": args.device,
        "seed": args.seed,
        "num_workers": args.num_workers,
        "checkpoint_every": args.checkpoint_every,
        "config": {"size": size, "command": shlex.join(sys.argv)},
    }


def plan(trainer: Trainer, batch_size: int, group: ProcessGroup) -> str:
    batch = f"batch {batch_size}" + (f" in each of {group.world_size} processes" if group.world_size > 1 else "")
    return f"{trainer.total_steps} steps of {batch} on {trainer.device} in {trainer.precision}"


def held_out(folder: Path) -> Path | None:
    """The folder beside train/ that is validated on."""
    return next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)


def given(value: int | None, default: int) -> int:
    return default if value is None else value


def report(validation: dict | None, out: Path) -> str:
    lines = ["", "validation, pictures in [0, 1]:", "    mode           L1    PSNR"] if validation else []
    for mode in ("eval", "batch_stats", "paper") if validation else ():
        best = "  <- saved with the generator" if mode == validation["best"] else ""
        lines.append(f"    {mode:<11} {validation[mode]['l1']:.3f}   {validation[mode]['psnr']:5.2f}{best}")
    gallery = (out / "index.html").resolve().as_uri()
    return "\n".join([*lines, "", f"generator  {out / 'generator'}", f"gallery    {gallery}"])


def main(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run an example; an error of imtrans ends it with one line."""
    try:
        run(args)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
