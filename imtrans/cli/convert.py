"""Convert a checkpoint of pytorch-CycleGAN-and-pix2pix to a folder that load_pretrained and this command take.

imtrans convert checkpoints/facades/latest_net_G.pth labels2photo

The architecture is read from the tensors of the checkpoint.
"""

import argparse

from imtrans.convert import from_junyanz
from imtrans.modes import MODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `imtrans convert`."""
    parser.add_argument("checkpoint", metavar="FILE", help="a .pth file that pytorch-CycleGAN-and-pix2pix saved")
    parser.add_argument("out", metavar="FOLDER", help="the folder to write")
    parser.add_argument("--no-dropout", action="store_true", help="the U-Net was trained without dropout")
    parser.add_argument("--mode", choices=MODES, default="eval", help="how the network is meant to be run (eval)")


def run(args: argparse.Namespace) -> None:
    """Convert the checkpoint."""
    network = from_junyanz(args.checkpoint, dropout=not args.no_dropout, mode=args.mode)
    network.save_pretrained(args.out)
    settings = ", ".join(f"{k}={v!r}" for k, v in network.config.items() if v not in (None, (), []))
    print(f"{type(network).__name__}({settings})\nwritten to {args.out}")
