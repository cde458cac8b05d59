"""Train pix2pix to turn line drawings into photos, on a folder of photos or on procedural facades.

The drawings are the edges of the photos, thin and black on white. Their strength is drawn at random in training, so
that the generator also takes a drawing by hand:

python examples/edges2photo.py                          # procedural facades, a few minutes on a laptop
python examples/edges2photo.py --data DIR               # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
imtrans translate --weights runs/edges2photo/generator drawing.png --out photo.png
"""

import argparse

import torch

from imtrans import Pix2Pix
from imtrans.cli.train.data import photo_pairs
from imtrans.cli.train.flags import parse_flags, photo_parser
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.data import Edges
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    parser = photo_parser(__doc__, Pix2Pix, out="runs/edges2photo")
    default = Edges()
    for name, text in (("threshold", "contrast of the weakest edge, from 0 to 1"), ("sigma", "blur in pixels")):
        low, high = bounds = getattr(default, name)
        help_text = f"{text}; drawn between two numbers ({low} {high})"
        parser.add_argument(f"--{name}", type=float, nargs=2, metavar=("LOW", "HIGH"), default=bounds, help=help_text)
    return parse_flags(parser)


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = photo_pairs(args, Edges(threshold=tuple(args.threshold), sigma=tuple(args.sigma)))
    train_method(args, paired_method(args, (1, 3)), train, val, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
