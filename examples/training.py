"""Shared by the training examples: flags, arguments of the trainer, and the printed report."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imtrans import Trainer
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import ImtransError
from imtrans.training.schedule import LR_POLICIES


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-bad-image", choices=["error", "skip"], default="error", help="skip: leave out images that cannot be read"
    )
    parser.add_argument("--decay-epochs", type=int, help="last epochs, with a decaying learning rate (half of all)")
    parser.add_argument("--lr-policy", choices=LR_POLICIES, default="linear", help="see imtrans.Trainer (linear)")
    parser.add_argument("--warmup-epochs", type=int, default=0, help="first epochs, with a growing learning rate (0)")
    parser.add_argument("--max-steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch-size", type=int, default=1, help="samples in each process (1)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--no-compile", action="store_true", help="do not capture the step as a CUDA graph")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--num-workers", type=int, default=0, help="loader processes for data that do not fit in memory (0)"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="N",
        help="steps between checkpoints (a twentieth of the run, at least 100)",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    parser.add_argument("--push-to-hub", metavar="USER/REPO", help="push the trained networks at the end")


def trainer_arguments(args: argparse.Namespace, *, size: int) -> dict[str, Any]:
    """Return the arguments of `imtrans.Trainer` that the flags set."""
    return {
        "out": args.out,
        "decay_epochs": args.decay_epochs,
        "lr_policy": args.lr_policy,
        "warmup_epochs": args.warmup_epochs,
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


def unet_depth(size: int) -> int:
    """Return the depth of a U-Net for images of `size` pixels: 8 at 256 pixels and above."""
    return min(8, size.bit_length() - 1)


def held_out(folder: Path) -> Path | None:
    """Return the folder of validation data in `folder`: val/ or test/."""
    return next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)


def given(value: int | None, default: int) -> int:
    return default if value is None else value


def report(validation: dict | None, out: Path) -> str:
    lines = ["", "validation, images in [0, 1]:", "    mode           L1    PSNR"] if validation else []
    for mode in ("eval", "batch_stats", "paper") if validation else ():
        best = "  <- saved with the generator" if mode == validation["best"] else ""
        lines.append(f"    {mode:<11} {validation[mode]['l1']:.3f}   {validation[mode]['psnr']:5.2f}{best}")
    gallery = (out / "index.html").resolve().as_uri()
    return "\n".join([*lines, "", f"generator  {out / 'generator'}", f"gallery    {gallery}"])


def main(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run an example, print an error of imtrans in one line, and return the exit code."""
    try:
        run(args)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
