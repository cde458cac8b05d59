"""Train CycleGAN on two unpaired sets of images: folders, or procedural facades.

python examples/cyclegan.py                             # procedural facades, a few minutes on a laptop
python examples/cyclegan.py --data DIR                  # DIR/trainA and DIR/trainB; DIR/testA and DIR/testB for samples
python examples/cyclegan.py --data-a HORSES --data-b ZEBRAS
torchrun --nproc-per-node=4 examples/cyclegan.py --data DIR             # four processes, one GPU each
"""

import argparse

import torch

from imtrans.cli.train import cyclegan
from imtrans.cli.train.flags import make_parser, parse_flags
from imtrans.cli.train.run import main, train_method
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    cyclegan.add_arguments(parser := make_parser(__doc__))
    return parse_flags(parser, cyclegan.check)


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    # Two sets of images, from folders or procedural facades.
    train, test = cyclegan.load_images(args)
    # Two generators and two discriminators with initial weights, and the losses.
    method = cyclegan.make_method(args)
    # A Trainer with a progress bar, a gallery and checkpoints.
    train_method(args, method, train, test, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
