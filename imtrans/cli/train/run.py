"""The run that the flags ask for: its trainer, and the texts that it prints."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from imtrans.cli.train.flags import chosen
from imtrans.cli.train.networks import init_arguments, settings_of, warm_start
from imtrans.convert import load_pretrained
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import ImtransError, counted
from imtrans.methods import Method
from imtrans.modes import MODES
from imtrans.runtime import pick_device
from imtrans.training import Trainer


def main(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a script, print an error of imtrans in one line, and return the exit status."""
    try:
        run(args)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train_method(args: argparse.Namespace, method: nn.Module, train: Any, val: Any, group: ProcessGroup) -> Trainer:
    """Train a method, and push it if --push-to-hub says so. Prints the data, the plan and a report.

    `args` has a size, a number of base channels and of epochs: see `imtrans.cli.train.flags.set_defaults`.
    """
    say = print if group.is_rank0 else lambda text: None
    say(f"training on   {train}")
    if args.paired:
        say(f"validating on {val or 'nothing: there is no train/ with val/ or test/ beside it'}")
    else:
        say(f"samples of    {val or 'the training data: there is no testA/ with testB/'}")
    warm_start(args, method, group)
    trainer = Trainer(cast(Any, method), train, val_data=val, epochs=args.epochs, **trainer_arguments(args))
    batch = f"batch {args.batch_size}" + (f" in each of {group.world_size} processes" if group.world_size > 1 else "")
    say(f"{counted(trainer.total_steps, 'step')} of {batch} on {trainer.device} in {trainer.precision}")
    validation = trainer.fit(resume=args.resume)
    say(report(validation, args.out, [each.name for each in cast(Method, method).translations()]))
    if args.push_to_hub:
        say(f"pushed to  {trainer.push_to_hub(args.push_to_hub)}")
    return trainer


def trainer_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `imtrans.Trainer` that the flags set."""
    return {
        "out": args.out,
        **settings_of(args).trainer,
        **chosen(lr=args.lr, betas=args.betas and tuple(args.betas)),
        "decay_epochs": args.decay_epochs,
        "lr_policy": args.lr_policy,
        "warmup_epochs": args.warmup_epochs,
        "max_steps": args.max_steps,
        "ema": args.ema,
        "batch_size": args.batch_size,
        "precision": args.precision,
        "segmenter": args.segmenter and load_pretrained(args.segmenter).to(pick_device(args.device)),
        "compile": False if args.no_compile else "auto",
        "device": args.device,
        "seed": args.seed,
        "num_workers": args.num_workers,
        "checkpoint_every": args.checkpoint_every,
        "config": {
            "recipe": args.recipe,
            "size": args.size,
            "init": init_arguments(args),
            **chosen(warm_start=args.warm_start),
            "command": getattr(args, "command_line", None) or shlex.join(sys.argv),
        },
    }


def report(validation: Mapping[str, Any] | None, out: Path, generators: list[str]) -> str:
    """Return the text about a finished run: the scores of each inference mode, the networks and the gallery."""
    lines = _table(validation) if validation else []
    label = "generator" if len(generators) == 1 else "generators"
    folders = "\n           ".join(str(out / name) for name in generators)
    gallery = (out / "index.html").resolve().as_uri()
    return "\n".join([*lines, "", f"{label:<10} {folders}", f"gallery    {gallery}"])


def _table(validation: Mapping[str, Any]) -> list[str]:
    distances = [name for name in ("texture", "layout") if name in validation["eval"]]
    columns = "".join(f"{name:>10}" for name in distances)
    lines = ["", "validation, images in [0, 1]:", f"    mode           L1    PSNR     SWD{columns}"]
    for mode in MODES:
        best = "  <- saved with the generator" if mode == validation["best"] else ""
        scores = validation[mode]
        # Images below 16 pixels have none.
        swd = f"{scores['swd']:7.2f}" if "swd" in scores else f"{'-':>7}"
        own = "".join(f"{scores[name]:10.3g}" for name in distances)
        lines.append(f"    {mode:<11} {scores['l1']:.3f}   {scores['psnr']:5.2f} {swd}{own}{best}")
    return lines
