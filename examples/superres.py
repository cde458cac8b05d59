"""Train pix2pix to enlarge photos, on a folder of photos or on procedural facades.

The sources are the photos downsampled by --factor and resized back; the generator adds the detail:

python examples/superres.py                             # procedural facades, a few minutes on a laptop
python examples/superres.py --data DIR --factor 8       # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
"""

import argparse

import torch

from imtrans import Pix2Pix, evaluate
from imtrans.cli.train.data import photo_pairs
from imtrans.cli.train.flags import parse_flags, photo_parser
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.data import Small
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    parser = photo_parser(__doc__, Pix2Pix, out="runs/superres")
    parser.add_argument("--factor", type=int, default=4, help="of the sides of an image (4)")
    return parse_flags(parser)


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = photo_pairs(args, Small(args.factor))
    trainer = train_method(args, paired_method(args), train, val, group)
    if val is not None and group.is_rank0:
        for name, network in (("bicubic", torch.nn.Identity()), ("output", trainer.method.generator)):
            scores = evaluate(network, val, metrics=("l1", "psnr", "ssim", "swd"))
            print(f"{name:<10}", "   ".join(f"{metric.upper()} {score:.3f}" for metric, score in scores.items()))


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
