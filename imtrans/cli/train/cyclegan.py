"""Train CycleGAN on two unpaired sets of images: folders, or procedural facades.

imtrans train cyclegan                                  # procedural facades, a few minutes on a laptop
imtrans train cyclegan --data DIR                       # DIR/trainA and DIR/trainB; DIR/testA and DIR/testB for samples
imtrans train cyclegan --data-a HORSES --data-b ZEBRAS
"""

import argparse
from pathlib import Path
from typing import Any

from torch import nn

from imtrans.cli.train.flags import (
    REAL,
    add_data_flags,
    add_flags,
    add_network_flags,
    check_procedural,
    data_arguments,
    set_defaults,
)
from imtrans.cli.train.networks import make_discriminator, make_generator, method_arguments
from imtrans.cli.train.run import train_method
from imtrans.data import UnpairedFacades, UnpairedImages
from imtrans.data.paired import DIRECTIONS
from imtrans.distributed.process_group import init_process_group
from imtrans.errors import DataError
from imtrans.methods import CycleGAN
from imtrans.methods.recipes import resnet_blocks
from imtrans.nn import ResnetGenerator
from imtrans.runtime import pick_device

SHORT = {"size": 64, "base_channels": 16, "epochs": 5}
"""Defaults of flags for procedural facades."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of CycleGAN."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with trainA/, trainB/ and, for samples, testA/, testB/"
    )
    data.add_argument("--data-a", type=Path, metavar="DIR", help="folder of images; needs --data-b")
    data.add_argument("--data-b", type=Path, metavar="DIR", help="folder of images; needs --data-a")
    data.add_argument("--direction", choices=DIRECTIONS, default="AtoB", help="AtoB: the sources are in A (AtoB)")
    add_data_flags(data, procedural_size=SHORT["size"])
    add_network_flags(parser, CycleGAN, norm="instance", dropout=False, procedural_width=SHORT["base_channels"])
    add_flags(parser, out="runs/cyclegan", procedural=SHORT, paired=False)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process if flags contradict one another."""
    if (args.data_a is None) != (args.data_b is None) or (args.data is not None and args.data_a is not None):
        parser.error("give --data, or --data-a and --data-b, or none of them")
    if not (args.data or args.data_a):
        check_procedural(parser, args)


def run(args: argparse.Namespace) -> None:
    """Train CycleGAN."""
    group = init_process_group(pick_device(args.device))
    train, test = load_images(args)
    train_method(args, make_method(args), train, test, group)


def load_images(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the images of two sets for training, and the ones for samples, from folders or procedural facades.

    Flags that are not set get their defaults.
    """
    if args.data is None and args.data_a is None:
        set_defaults(args, **SHORT)
        same: dict[str, Any] = {"size": args.size, "direction": args.direction}
        train = UnpairedFacades(200, seed=2 * args.seed, **same)
        return train, UnpairedFacades(4, seed=2 * args.seed + 1, augment=False, **same)
    set_defaults(args, **REAL)
    same = {**data_arguments(args), "direction": args.direction, "seed": args.seed}
    if args.data is None:
        return UnpairedImages(args.data_a, args.data_b, **same), None
    missing = [name for name in ("trainA", "trainB") if not (args.data / name).is_dir()]
    if missing and args.data.is_dir():
        raise DataError(
            f"{args.data} has no folder {' and no '.join(missing)}. Put the images of one set in trainA and of the "
            "other in trainB, or give two folders with --data-a and --data-b."
        )
    images = UnpairedImages(args.data / "trainA", args.data / "trainB", **same)
    if not all((args.data / name).is_dir() for name in ("testA", "testB")):
        return images, None
    return images, UnpairedImages(args.data / "testA", args.data / "testB", augment=False, **same)


def make_method(args: argparse.Namespace) -> nn.Module:
    """Make CycleGAN with its four networks."""
    resnet = {"num_blocks": resnet_blocks(args.size)}
    to_target, to_source = (make_generator(args, ResnetGenerator, resnet, seed=args.seed + i) for i in (0, 1))
    for_target, for_source = (make_discriminator(args, 3, seed=args.seed + i) for i in (2, 3))
    return CycleGAN(
        to_target,
        to_source,
        target_discriminator=for_target,
        source_discriminator=for_source,
        **method_arguments(args),
    )
