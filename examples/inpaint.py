"""Train pix2pix to fill holes in photos, on a folder of photos or on procedural facades.

The generator gets the photo with holes and their mask as a fourth channel. Only its output in the holes is used: the
other pixels are kept, in training and in `imtrans.translate`. To fill a part of a picture, make it transparent:

python examples/inpaint.py                              # procedural facades, a few minutes on a laptop
python examples/inpaint.py --data DIR --holes centre    # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
imtrans translate --weights runs/inpaint/generator holes.png --out filled.png
"""

import argparse

import torch
from torch import nn

from imtrans import DerivedPairs, Inpainting, translate
from imtrans.cli.train.data import photo_pairs
from imtrans.cli.train.flags import parse_flags, photo_parser, set_defaults
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.data import Holes
from imtrans.data.derivations import HOLES
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    small = {"generator": "resnet_6blocks", "base_channels": 16}  # for the short run on facades
    parser = photo_parser(__doc__, Inpainting, out="runs/inpaint", **small)
    parser.add_argument("--holes", choices=HOLES, default="strokes", help="kind of holes (strokes)")
    parser.add_argument("--hole-size", type=float, default=0.5, help="relative to the image, see Holes (0.5)")
    return parse_flags(parser)


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = photo_pairs(args, Holes(args.holes, args.hole_size))
    set_defaults(args, generator="resnet_9blocks")
    trainer = train_method(args, paired_method(args, (4, 3)), train, val, group)
    if val is not None and group.is_rank0:
        print("mean L1    in the holes {:.3f}, around them {:.3f}".format(*hole_l1(trainer.method.generator, val)))


def hole_l1(generator: nn.Module, data: DerivedPairs) -> tuple[float, float]:
    """Return the mean L1 of the pixels in the holes and of the others, for images in [0, 1]."""
    inside, around = [], []
    for sample in (data[i] for i in range(len(data))):
        error = (translate(generator, sample["source"]) - sample["target"]).abs().mean(dim=0) / 2
        hole = sample["source"][3] < 0
        inside.append(error[hole])
        around.append(error[~hole])
    return torch.cat(inside).mean().item(), torch.cat(around).mean().item()


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
