"""Train pix2pix to colour grey images, on a folder of photos or on procedural facades.

imtrans train colorization                              # procedural facades, a few minutes on a laptop
imtrans train colorization --data DIR                   # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
"""

import argparse

from imtrans.cli.train.data import photo_pairs
from imtrans.cli.train.flags import add_photo_flags, check_data
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import train_method
from imtrans.distributed.process_group import init_process_group
from imtrans.methods import Colorization
from imtrans.runtime import pick_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of colorization."""
    add_photo_flags(parser, Colorization, out="runs/colorize")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process if a flag is for a folder, and there is no --data."""
    check_data(parser, args)


def run(args: argparse.Namespace) -> None:
    """Train colorization."""
    group = init_process_group(pick_device(args.device))
    train, val = photo_pairs(args, "lab")
    train_method(args, paired_method(args, (1, 2)), train, val, group)
