"""Write a generator as an ONNX file, for programs without PyTorch. Needs the extra imtrans[onnx].

imtrans export runs/facades/generator --onnx labels2photo.onnx
imtrans export user/repo --onnx labels2photo.onnx --size 256 256        # for images of 256x256 alone
"""

import argparse
from pathlib import Path

from imtrans.cli.weights import NAME, add_weights_flags, load_weights
from imtrans.inference import export_onnx
from imtrans.modes import MODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `imtrans export`."""
    parser.add_argument("name", metavar="NAME", help=f"generator: {NAME}")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--mode", choices=MODES[:2], help="how norms run (as saved with the generator)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="for images of this size alone (of every size)"
    )
    parser.add_argument("--no-dynamic", action="store_true", help="for batches of one image alone; needs --size")
    add_weights_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Export the generator."""
    size = args.size and tuple(args.size)
    generator = load_weights(args.name, args)
    export_onnx(generator, args.onnx, mode=args.mode, size=size, dynamic=not args.no_dynamic)
    print(f"written to {args.onnx}, {args.onnx.stat().st_size / 2**20:.1f} MB")
