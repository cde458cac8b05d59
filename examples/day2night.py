"""Train pix2pix from day to night: pairs of a folder, or procedural facades.

python examples/day2night.py                            # procedural facades, a few minutes on a laptop
python examples/day2night.py --direction BtoA           # night to day
python examples/day2night.py --data DIR                 # DIR/train/*.jpg and DIR/val/*.jpg, day and night side by side

In the data set "night2day" of pix2pix, the night is on the left: from day to night is --direction BtoA.
"""

import argparse

import torch

from imtrans import NightFacades
from imtrans.cli.train.data import pairs_of
from imtrans.cli.train.flags import pair_parser, parse_flags
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    return parse_flags(pair_parser(__doc__, out="runs/day2night", direction="day to night"))


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = pairs_of(args, NightFacades)
    train_method(args, paired_method(args), train, val, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
