"""Train pix2pix on facades: image pairs from a folder or the Hub, the CMP data set, or procedural facades.

python examples/pix2pix_facades.py                      # procedural facades, a few minutes on a laptop
python examples/pix2pix_facades.py --data DIR           # DIR/train/*.jpg, or DIR/train/A and DIR/train/B
python examples/pix2pix_facades.py --data DIR --recipe paper            # as in the paper of 2017
python examples/pix2pix_facades.py --data hf:huggan/facades             # from the Hub: pip install "imtrans[datasets]"
python examples/pix2pix_facades.py --download           # the CMP facades, from the authors of pix2pix
torchrun --nproc-per-node=4 examples/pix2pix_facades.py --data DIR      # four processes, one GPU each
"""

import argparse
from pathlib import Path

import torch
from training import (
    add_data_flags,
    add_flags,
    add_network_flags,
    add_pair_flags,
    check_procedural,
    check_rows_flags,
    data_arguments,
    drawn,
    main,
    pairs_of_folder,
    pairs_of_rows,
    set_defaults,
    train_paired,
)

from imtrans import Pix2Pix, ProceduralFacades
from imtrans.colours import PALETTES
from imtrans.data.paired import PREPROCESS
from imtrans.distributed.process_group import init_process_group
from imtrans.hub.download import fetch, unpack_tar
from imtrans.runtime import pick_device

CMP_FACADES = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/facades.tar.gz"
CMP_FACADES_SIZE = 30_168_306  # bytes; the authors publish no digest


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    add_pair_flags(parser, source)
    source.add_argument("--download", action="store_true", help="fetch the CMP facades (30 MB) to data/facades")
    parser.add_argument("--sha256", metavar="DIGEST", help="that the archive of --download must have")
    parser.add_argument(
        "--direction",
        choices=["AtoB", "BtoA"],
        default="BtoA",
        help="BtoA, the default here alone: labels to photos, as in the CMP facades",
    )
    parser.add_argument("--epochs", type=int, help="total (200; 5 for procedural facades)")
    add_data_flags(parser, procedural_size=128)
    parser.add_argument(
        "--preprocess", choices=PREPROCESS, default="resize_and_crop", help="from image to sample (resize_and_crop)"
    )
    parser.add_argument("--base-channels", type=int, help="width of the networks (64; 32 for procedural facades)")
    parser.add_argument("--out", type=Path, default=Path("runs/facades"))
    parser.add_argument(
        "--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of 16-bit or float files (0 65535)"
    )
    parser.add_argument(
        "--channels",
        type=lambda text: int(text) if text.isdigit() else text,
        default="rgb",
        help='rgb, grey, "as they are" or a number; all but rgb keep 16 bits and read .npy and .npz (rgb)',
    )
    parser.add_argument(
        "--labels",
        type=lambda text: int(text) if text.isdigit() else text,
        metavar="|".join([*PALETTES, "NUMBER"]),
        help="the source is a label map in these colours, or holds the ids of this number of classes",
    )
    parser.add_argument(
        "--instances", action="store_true", help="with --labels: add the edges of the ids in train/instances"
    )
    add_flags(parser)
    add_network_flags(parser, Pix2Pix, norm="batch", dropout=True)
    args = parser.parse_args()
    if not (args.data or args.download):
        check_procedural(parser, args)
    if args.labels and not (args.data or args.download):
        parser.error("--labels is for the label maps of --data or --download")
    if args.sha256 and not args.download:
        parser.error("--sha256 is of the archive that --download fetches")
    check_rows_flags(parser, args)
    if isinstance(args.data, str) and (args.instances or args.channels != "rgb"):
        parser.error("--instances and --channels are for files, and --data hf:... gives pictures")
    return args


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    if args.data is None and not args.download:
        set_defaults(args, size=128, base_channels=32, epochs=5)
        train_paired(args, *drawn(args, ProceduralFacades), group)
        return
    set_defaults(args, size=256, base_channels=64, epochs=200)
    settings = {**data_arguments(args, args.size), "labels": args.labels, "preprocess": args.preprocess}
    settings["value_range"] = args.value_range
    if isinstance(args.data, str):
        pairs, held_out_pairs = pairs_of_rows(args, **settings)
    else:
        folder = args.data or group.run_on_rank0(lambda: download(Path("data"), args.sha256))
        settings |= {"direction": args.direction, "channels": args.channels, "instances": args.instances}
        pairs, held_out_pairs = pairs_of_folder(folder, seed=args.seed, **settings)
    train_paired(args, pairs, held_out_pairs, group, channels=(pairs.channels["source"], pairs.channels["target"]))


def download(into: Path, sha256: str | None) -> Path:
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


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
