"""Train pix2pix from day to night: pairs of a folder, or procedural facades.

python examples/day2night.py                            # procedural facades, a few minutes on a laptop
python examples/day2night.py --direction BtoA           # night to day
python examples/day2night.py --data DIR                 # DIR/train/*.jpg and DIR/val/*.jpg, day and night side by side

In the data set "night2day" of pix2pix, the night is on the left: from day to night is --direction BtoA.
"""

import argparse

import torch
from training import main, pair_parser, pairs_of, parse_flags, train_paired

from imtrans import NightFacades
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    return parse_flags(pair_parser(__doc__, out="runs/day2night", direction="day to night"))


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train, val = pairs_of(args, NightFacades)
    train_paired(args, train, val, group)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
