"""Train pix2pix on pairs of images: of a folder, of the CMP facades, or procedural facades.

imtrans train pix2pix                                   # procedural facades, a few minutes on a laptop
imtrans train pix2pix --data DIR --out runs/mine        # DIR/train/*.jpg, or DIR/train/A and DIR/train/B
imtrans train pix2pix --data DIR --recipe paper         # as in the paper of 2017
imtrans train pix2pix --download                        # the CMP facades, from the authors of pix2pix
"""

import argparse
from pathlib import Path
from typing import Any

from imtrans.cli.train.data import drawn, pairs_of_folder
from imtrans.cli.train.flags import (
    PROCEDURAL,
    REAL,
    add_data_flags,
    add_flags,
    add_network_flags,
    add_pair_flags,
    check_procedural,
    check_rows_flags,
    data_arguments,
    set_defaults,
)
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.rows import pairs_of_rows
from imtrans.cli.train.run import train_method
from imtrans.colours import PALETTES
from imtrans.data import ProceduralFacades
from imtrans.data.paired import DIRECTIONS, PREPROCESS
from imtrans.distributed.process_group import ProcessGroup, init_process_group
from imtrans.hub.download import fetch, unpack_tar
from imtrans.methods import Pix2Pix
from imtrans.runtime import pick_device

CMP_FACADES = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/facades.tar.gz"
CMP_FACADES_SIZE = 30_168_306  # bytes; the authors publish no digest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of pix2pix."""
    data = parser.add_argument_group("data")
    source = data.add_mutually_exclusive_group()
    add_pair_flags(data, source)
    source.add_argument("--download", action="store_true", help="fetch the CMP facades (30 MB) to data/facades")
    data.add_argument("--sha256", metavar="DIGEST", help="that the archive of --download must have")
    data.add_argument(
        "--direction",
        choices=DIRECTIONS,
        default="BtoA",
        help="BtoA, the default here alone: labels to photos, as in the CMP facades",
    )
    add_data_flags(data, procedural_size=128)
    data.add_argument(
        "--preprocess", choices=PREPROCESS, default="resize_and_crop", help="from image to sample (resize_and_crop)"
    )
    data.add_argument(
        "--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of 16-bit or float files (0 65535)"
    )
    data.add_argument(
        "--channels",
        type=_number_or_name,
        default="rgb",
        metavar="KIND",
        help='rgb, grey, "as they are" or a number; all but rgb keep 16 bits and read .npy and .npz (rgb)',
    )
    data.add_argument(
        "--labels",
        type=_number_or_name,
        metavar="|".join([*PALETTES, "NUMBER"]),
        help="the source is a label map in these colours, or holds the ids of this number of classes",
    )
    data.add_argument(
        "--instances", action="store_true", help="with --labels: add the edges of the ids in train/instances"
    )
    add_network_flags(parser, Pix2Pix, norm="batch", dropout=True, procedural_width=32)
    add_flags(parser, out="runs/facades")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process if flags contradict one another."""
    if not (args.data or args.download):
        check_procedural(parser, args)
    if args.labels and not (args.data or args.download):
        parser.error("--labels is for the label maps of --data or --download")
    if args.sha256 and not args.download:
        parser.error("--sha256 is of the archive that --download fetches")
    check_rows_flags(parser, args)
    if isinstance(args.data, str) and (args.instances or args.channels != "rgb"):
        parser.error("--instances and --channels are for files, and --data hf:... gives pictures")


def run(args: argparse.Namespace) -> None:
    """Train pix2pix."""
    group = init_process_group(pick_device(args.device))
    train, val, channels = load_pairs(args, group)
    train_method(args, paired_method(args, channels), train, val, group)


def load_pairs(args: argparse.Namespace, group: ProcessGroup) -> tuple[Any, Any, tuple[int, int]]:
    """Return pairs for training and validation, and the channels of source and target.

    They are of --data, of the CMP facades, or of procedural facades. Flags that are not set get their defaults.
    """
    if args.data is None and not args.download:
        set_defaults(args, **PROCEDURAL)
        return *drawn(args, ProceduralFacades), (3, 3)
    set_defaults(args, **REAL)
    settings = {**data_arguments(args), "labels": args.labels, "preprocess": args.preprocess}
    settings["value_range"] = args.value_range
    if isinstance(args.data, str):
        train, val = pairs_of_rows(args, **settings)
    else:
        folder = args.data or group.run_on_rank0(lambda: download(Path("data"), args.sha256))
        settings |= {"direction": args.direction, "channels": args.channels, "instances": args.instances}
        train, val = pairs_of_folder(folder, seed=args.seed, **settings)
    return train, val, (train.channels["source"], train.channels["target"])


def download(into: Path, sha256: str | None) -> Path:
    """Fetch the CMP facades to a folder in `into`, unless it exists. Returns the folder; raises a DataError."""
    folder, archive = into / "facades", into / "facades.tar.gz"
    if not folder.is_dir():
        print(f"fetching {CMP_FACADES}")
        found = fetch(CMP_FACADES, archive, sha256=sha256, size=CMP_FACADES_SIZE)
        print(f"sha256   {found}{'' if sha256 else ' (not compared with any: see --sha256)'}")
        try:
            unpack_tar(archive, folder, top="facades", max_bytes=2**30)
        finally:
            archive.unlink()
    return folder


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdigit() else text
