"""Train pix2pix on aerial photos and maps: pairs of a folder, or procedural towns.

python examples/maps.py                                 # procedural towns, a few minutes on a laptop
python examples/maps.py --direction BtoA                # maps to aerial photos
python examples/maps.py --data DIR                      # DIR/train/*.jpg and DIR/val/*.jpg, photo and map side by side

The pairs of the data set "maps" of pix2pix are of 600x600 pixels. They are cropped at --size, not resized.
"""

import argparse

import torch

from imtrans import ProceduralTowns
from imtrans.cli.train.data import pairs_of
from imtrans.cli.train.flags import pair_parser, parse_flags
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.data.paired import PREPROCESS
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    parser = pair_parser(__doc__, out="runs/maps", direction="aerial photos to maps")
    parser.add_argument("--preprocess", choices=PREPROCESS, help="from image of --data to sample (crop)")
    args = parse_flags(parser)
    if args.data is None:
        if args.preprocess is not None:
            parser.error("--preprocess is for the images of a folder, and there is no --data")
    elif args.load_size is not None and args.preprocess in (None, "crop", "none"):
        parser.error("--load-size is for images that are resized: add --preprocess scale_width_and_crop")
    return args


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = pairs_of(args, ProceduralTowns, preprocess=args.preprocess or "crop")
    train_method(args, paired_method(args), train, val, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
