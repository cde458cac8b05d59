"""Train pix2pix to colour grey images, on a folder of photos or on procedural facades.

python examples/colorize.py                             # procedural facades, a few minutes on a laptop
python examples/colorize.py --data DIR                  # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
torchrun --nproc-per-node=4 examples/colorize.py --data DIR             # four processes, one GPU each
"""

import argparse

import torch

from imtrans.cli.train import colorization
from imtrans.cli.train.data import photo_pairs
from imtrans.cli.train.flags import make_parser, parse_flags
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    colorization.add_arguments(parser := make_parser(__doc__))
    return parse_flags(parser, colorization.check)


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    # Pairs from the photos of --data, or from procedural facades: their lightness, and their colours.
    train, val = photo_pairs(args, "lab")
    # A U-Net from 1 channel to 2 and a PatchGAN, with initial weights, and the losses of --recipe.
    method = paired_method(args, (1, 2))
    # A Trainer with a progress bar, a gallery, validation and checkpoints.
    train_method(args, method, train, val, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
