"""Train pix2pix to colour grey images, on a folder of photos or on procedural facades.

python examples/colorize.py                             # procedural facades, a few minutes on a laptop
python examples/colorize.py --data DIR                  # DIR/*.jpg, or DIR/train/*.jpg and DIR/val/*.jpg
torchrun --nproc-per-node=4 examples/colorize.py --data DIR             # four processes, one GPU each
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from training import (
    add_data_flags,
    add_flags,
    add_network_flags,
    check_procedural,
    data_arguments,
    held_out,
    main,
    set_defaults,
    train_paired,
)

from imtrans import Colorization, LabFacades, LabImages
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photos, or with train/ and, for validation, val/ or test/")
    parser.add_argument("--epochs", type=int, help="total (200; 5 for procedural facades)")
    add_data_flags(parser, procedural_size=128)
    parser.add_argument("--base-channels", type=int, help="width of the networks (64; 32 for procedural facades)")
    parser.add_argument("--out", type=Path, default=Path("runs/colorize"))
    add_flags(parser)
    add_network_flags(parser, Colorization, norm="batch", dropout=True)
    args = parser.parse_args()
    if not args.data:
        check_procedural(parser, args)
    return args


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    train: LabImages | LabFacades
    val: LabImages | LabFacades | None
    if args.data:
        set_defaults(args, size=256, base_channels=64, epochs=200)
        train, val = photos(args.data, seed=args.seed, **data_arguments(args, args.size))
    else:
        set_defaults(args, size=128, base_channels=32, epochs=5)
        train = LabFacades(400, size=args.size, seed=2 * args.seed)
        val = LabFacades(20, size=args.size, seed=2 * args.seed + 1, augment=False)
    train_paired(args, train, val, group, channels=(1, 2))


def photos(folder: Path, **settings: Any) -> tuple[LabImages, LabImages | None]:
    if not (folder / "train").is_dir():
        return LabImages(folder, **settings), None
    val = held_out(folder)
    train = LabImages(folder / "train", **settings)
    return train, None if val is None else LabImages(val, augment=False, **settings)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
