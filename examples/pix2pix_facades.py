"""Train pix2pix on facades: image pairs from a folder or the Hub, the CMP data set, or procedural facades.

python examples/pix2pix_facades.py                      # procedural facades, a few minutes on a laptop
python examples/pix2pix_facades.py --data DIR           # DIR/train/*.jpg, or DIR/train/A and DIR/train/B
python examples/pix2pix_facades.py --data DIR --recipe paper            # as in the paper of 2017
python examples/pix2pix_facades.py --data hf:huggan/facades             # from the Hub: pip install "imtrans[datasets]"
python examples/pix2pix_facades.py --download           # the CMP facades, from the authors of pix2pix
torchrun --nproc-per-node=4 examples/pix2pix_facades.py --data DIR      # four processes, one GPU each
"""

import argparse

import torch

from imtrans.cli.train import pix2pix
from imtrans.cli.train.flags import make_parser, parse_flags
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    pix2pix.add_arguments(parser := make_parser(__doc__))
    return parse_flags(parser, pix2pix.check)


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    # Pairs of --data, of the CMP facades, or procedural facades.
    train, val, channels = pix2pix.load_pairs(args, group)
    # A U-Net and a PatchGAN with initial weights, and the losses of --recipe.
    method = paired_method(args, channels)
    # A Trainer with a progress bar, a gallery, validation and checkpoints.
    train_method(args, method, train, val, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
