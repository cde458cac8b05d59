"""Train pix2pix to colour grey images, on a folder of photos or on procedural facades.

python examples/colorize.py                             # procedural facades, a few minutes on a laptop
python examples/colorize.py --data DIR                  # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
torchrun --nproc-per-node=4 examples/colorize.py --data DIR             # four processes, one GPU each
"""

import argparse

import torch
from training import main, parse_flags, photo_pairs, photo_parser, train_paired

from imtrans import Colorization
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    return parse_flags(photo_parser(__doc__, Colorization, out="runs/colorize"))


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = photo_pairs(args, "lab")
    train_paired(args, train, val, group, channels=(1, 2))


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
