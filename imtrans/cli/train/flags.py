"""The flags of training: of the data, the networks and the trainer. The training examples have them, too."""

import argparse
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from imtrans.cli.command import SizeAction
from imtrans.data.paired import DIRECTIONS
from imtrans.methods import Pix2Pix
from imtrans.methods.recipes import RECIPES
from imtrans.nn.init import SCHEMES
from imtrans.nn.layers import NORMS
from imtrans.nn.losses import GAN_MODES, PIXEL_LOSSES
from imtrans.nn.unet import NOISE_AT
from imtrans.training.schedule import LR_POLICIES

Group = argparse._ArgumentGroup
Check = Callable[[argparse.ArgumentParser, argparse.Namespace], None]
T = TypeVar("T")

GENERATORS = ("unet_256", "unet_128", "resnet_9blocks", "resnet_6blocks")
METHOD_FLAGS = {
    "l1_weight": "weight of the pixel loss",
    "d_loss_weight": "factor of the discriminator's loss",
    "source_cycle_weight": "weight of the cycle loss from source to target and back",
    "target_cycle_weight": "weight of the cycle loss from target to source and back",
    "identity_weight": "weight of the identity losses, relative to the cycle weights",
    "feature_weight": "weight of the feature matching loss, unless the recipe sets it",
    "diversity_weight": "weight of the diversity loss, for --noise-channels",
    "pool_size": "number of earlier images shown to the discriminator",
}


PROCEDURAL = {"size": 128, "base_channels": 32, "epochs": 5, "lr": 5e-4, "ema": 0.995}
"""Defaults of flags for 400 procedural samples. In so short a run, a high learning rate and averaged weights pay."""
REAL = {"size": 256, "base_channels": 64, "epochs": 200}
"""Defaults of flags for the images of a folder."""


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a training script, whose description is printed as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def pair_parser(description: str | None, *, out: str, direction: str) -> argparse.ArgumentParser:
    """Return the parser of an example that trains Pix2Pix on pairs; `direction` says what ``AtoB`` is."""
    parser = make_parser(description)
    data = parser.add_argument_group("data")
    add_pair_flags(data)
    data.add_argument("--direction", choices=DIRECTIONS, default="AtoB", help=f"AtoB: {direction} (AtoB)")
    add_data_flags(data, procedural_size=128)
    add_network_flags(parser, Pix2Pix, norm="batch", dropout=True, procedural_width=32)
    add_flags(parser, out=out)
    return parser


def data_source(text: str) -> Path | str:
    """Return the folder, or the text itself if it begins with hf:."""
    return text if text.startswith("hf:") else Path(text)


def add_pair_flags(data: Group, source: Any = None) -> None:
    """Add --data, to the group `source` if there is one, and the flags of its rows."""
    text = "folder with train/ and, for validation, val/ or test/; or hf:USER/NAME, a data set on the Hub"
    (source or data).add_argument("--data", type=data_source, metavar="DIR", help=text)
    data.add_argument(
        "--splits", nargs="+", metavar=("TRAIN", "VAL"), help="of hf: (train and, if there is one, val... or test)"
    )
    data.add_argument("--columns", nargs=2, metavar=("A", "B"), help="pictures of a row of hf: (imageA imageB)")


def check_rows_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the script if a flag for rows is given without --data hf:, or in a wrong form."""
    for flag in ("splits", "columns"):
        if getattr(args, flag) is not None and not isinstance(args.data, str):
            parser.error(f"--{flag} is for the rows of --data hf:USER/NAME")
    if len(args.splits or ()) > 2:
        parser.error("argument --splits: give one name, for training, or two, for training and validation")


def photo_parser(description: str | None, method: type, *, out: str, **procedural: Any) -> argparse.ArgumentParser:
    """Return the parser of an example whose sources are made from photos; arguments as for `add_photo_flags`."""
    add_photo_flags(parser := make_parser(description), method, out=out, **procedural)
    return parser


def add_photo_flags(parser: argparse.ArgumentParser, method: type, *, out: str, **procedural: Any) -> None:
    """Add all flags that the methods on photos share. `procedural` has defaults of flags for procedural facades."""
    procedural = PROCEDURAL | procedural
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of photos, or with train/ and, for validation, val/ or test/"
    )
    add_data_flags(data, procedural_size=128)
    add_network_flags(parser, method, norm="batch", dropout=True, procedural_width=procedural["base_channels"])
    add_flags(parser, out=out, procedural=procedural)
    parser.set_defaults(procedural=procedural)


def add_data_flags(data: Group, *, procedural_size: int) -> None:
    """Add the flags of images in a folder to the group of the data."""
    size: dict[str, Any] = {"type": int, "nargs": "+", "action": SizeAction, "metavar": ("HEIGHT", "WIDTH")}
    data.add_argument(
        "--size", **size, help=f"one number for squares (256; {procedural_size} for procedural images, only squares)"
    )
    data.add_argument(
        "--load-size", **size, help="that crops of --size are taken from (286 / 256 of it); not for procedural images"
    )
    data.add_argument("--no-flip", action="store_true", help="do not mirror images; not for procedural images")
    data.add_argument(
        "--on-bad-image", choices=["error", "skip"], default="error", help="skip: leave out images that cannot be read"
    )


def add_flags(
    parser: argparse.ArgumentParser, *, out: str, procedural: Mapping[str, Any] = PROCEDURAL, paired: bool = True
) -> None:
    """Add the flags of the schedule, the optimizer and the run, whose folder is `out` by default.

    `procedural` has defaults of flags for procedural images.
    """

    def default(name: str, usual: object) -> str:
        return f"({usual}; {procedural[name]} for procedural images)" if name in procedural else f"({usual})"

    parser.usage = "%(prog)s [flags]"
    schedule = parser.add_argument_group("schedule and optimizer")
    schedule.add_argument(
        "--epochs", type=int, metavar="N", help=f"number of all epochs {default('epochs', REAL['epochs'])}"
    )
    schedule.add_argument(
        "--decay-epochs", type=int, metavar="N", help="last epochs, with a decaying learning rate (half of them)"
    )
    schedule.add_argument("--lr-policy", choices=LR_POLICIES, default="linear", help="see imtrans.Trainer (linear)")
    schedule.add_argument(
        "--warmup-epochs", type=int, default=0, metavar="N", help="first epochs, with a growing learning rate (0)"
    )
    schedule.add_argument("--max-steps", type=int, metavar="N", help="stop after this many steps")
    schedule.add_argument("--batch-size", type=int, default=1, metavar="N", help="samples in each process (1)")
    schedule.add_argument("--lr", type=float, metavar="X", help=f"learning rate of Adam {default('lr', 0.0002)}")
    schedule.add_argument(
        "--ema",
        type=float,
        metavar="X",
        help=f"save averaged weights, with this decay rate of the average {default('ema', 'no average')}",
    )
    schedule.add_argument(
        "--betas", type=float, nargs=2, metavar=("BETA1", "BETA2"), help="decay rates of Adam's moments (0.5 0.999)"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help=f"folder of the run ({out})")
    run.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    run.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="N",
        help="steps between checkpoints (a twentieth of the run, at least 100)",
    )
    parser.set_defaults(paired=paired, segmenter=None)
    if paired:  # without pairs there is no validation
        text = "of targets, a folder or USER/REPO: the validation adds texture and layout"
        run.add_argument("--segmenter", metavar="NAME", help=text)
    run.add_argument("--push-to-hub", metavar="USER/REPO", help="push the trained networks at the end")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of initial weights, order and augmentation (0)")
    run.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (auto)")
    run.add_argument(
        "--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="see imtrans.Trainer"
    )
    run.add_argument("--no-compile", action="store_true", help="do not capture the step as a CUDA graph")
    run.add_argument(
        "--num-workers",
        type=int,
        default=0,
        metavar="N",
        help="loader processes for data that do not fit in memory (0)",
    )


def add_network_flags(
    parser: argparse.ArgumentParser, method: type, *, norm: str, dropout: bool, procedural_width: int
) -> None:
    """Add the flags of the networks and of the class `method`; a weight only if the class has it as an argument.

    `norm` is the default of --norm. `dropout` says whether the generators have dropout by default.
    """
    networks, losses = parser.add_argument_group("networks"), parser.add_argument_group("losses")
    parser.set_defaults(method=method, recipe="paper")
    if len(names := [name for name, methods in RECIPES.items() if method in methods]) > 1:
        networks.add_argument("--recipe", choices=names, default="sharp", help="see imtrans.recipe (sharp)")
    networks.add_argument(
        "--base-channels",
        type=int,
        metavar="N",
        help=f"width of the networks (64; {procedural_width} for procedural images)",
    )
    networks.add_argument("--generator", choices=GENERATORS, help="generator of pytorch-CycleGAN-and-pix2pix")
    networks.add_argument("--norm", choices=sorted(NORMS), default=norm, help=f"norm of all networks ({norm})")
    if dropout:
        networks.add_argument("--no-dropout", action="store_true", help="no dropout in the generator")
    parser.set_defaults(no_dropout=not dropout, noise_channels=0, noise_at="input")
    if "diversity_weight" in _parameters(method):
        networks.add_argument(
            "--noise-channels", type=int, metavar="N", help="length of the generator's noise, for a U-Net (0)"
        )
        networks.add_argument("--noise-at", choices=NOISE_AT, help="where the noise enters the U-Net (input)")
    networks.add_argument(
        "--discriminator", choices=["patch", "pixel"], default="patch", help="pixel: judges each pixel alone (patch)"
    )
    networks.add_argument(
        "--n-layers", type=int, metavar="N", help="convolutions of stride 2 in a patch discriminator (3)"
    )
    networks.add_argument(
        "--init", choices=SCHEMES, default="normal", help="distribution of the initial weights (normal)"
    )
    networks.add_argument(
        "--init-gain", type=float, metavar="X", help="standard deviation or gain of the initial weights (0.02)"
    )
    text = "weights to start from: a folder, USER/REPO, or a name in imtrans.published_weights()"
    networks.add_argument("--warm-start", metavar="NAME", help=text)
    losses.add_argument("--gan-mode", choices=GAN_MODES, help=f"adversarial loss ({default_of(method, 'gan_loss')})")
    if "pixel_loss" in _parameters(method):
        losses.add_argument(
            "--pixel-loss", choices=PIXEL_LOSSES, help=f"loss of pixels ({default_of(method, 'pixel_loss')})"
        )
    for name in (name for name in METHOD_FLAGS if name in _parameters(method)):
        flag, default = f"--{name.replace('_', '-')}", default_of(method, name)
        losses.add_argument(flag, type=type(default), metavar="X", help=f"{METHOD_FLAGS[name]} ({default:g})")


def default_of(function: Callable[..., Any], argument: str) -> Any:
    """Return the default of an argument; of a class also if only its base class has the argument."""
    return _parameters(function)[argument].default


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, or of a class and its bases, which may take `**options` for them."""
    bases = reversed(function.__mro__) if isinstance(function, type) else ()
    functions = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [function]
    return {name: each for made in functions for name, each in inspect.signature(made).parameters.items()}


def parse_flags(parser: argparse.ArgumentParser, check: Check | None = None) -> argparse.Namespace:
    """Parse the command line of a script, and `check` the flags, by default with `check_data`."""
    args = parser.parse_args()
    (check or check_data)(parser, args)
    return args


def check_data(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process if a flag is for other data than the flags name."""
    if args.data is None:
        check_procedural(parser, args)
    if hasattr(args, "splits"):
        check_rows_flags(parser, args)


def check_procedural(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process if a flag has no meaning for procedural images."""
    given_flags = {"--size HEIGHT WIDTH": isinstance(args.size, tuple), "--load-size": args.load_size is not None}
    for flag, is_given in {**given_flags, "--no-flip": args.no_flip}.items():
        if is_given:
            parser.error(f"{flag} is for the images of a folder, and there is no --data")


def data_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a data set of files that the flags set."""
    return {"size": args.size, "load_size": args.load_size, "flip": not args.no_flip, "on_bad_image": args.on_bad_image}


def set_defaults(args: argparse.Namespace, **values: Any) -> None:
    """Give the flags that are not set these values."""
    for name, value in values.items():
        setattr(args, name, given(getattr(args, name), value))


def chosen(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def given(value: T | None, default: T) -> T:
    """Return `value`, or `default` for None."""
    return default if value is None else value
