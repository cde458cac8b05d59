"""Convert a checkpoint of pytorch-CycleGAN-and-pix2pix: ``python -m imtrans.convert latest_net_G.pth OUT_DIR``.

OUT_DIR is a folder that `load_pretrained` reads.
"""

import argparse
import sys

from imtrans.convert.junyanz import from_junyanz
from imtrans.errors import ImtransError
from imtrans.modes import MODES


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m imtrans.convert", description=__doc__)
    parser.add_argument("checkpoint", help="a .pth file that pytorch-CycleGAN-and-pix2pix saved")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--no-dropout", action="store_true", help="the U-Net was trained without dropout")
    parser.add_argument("--mode", choices=MODES, default="eval", help="how the network is meant to be run (eval)")
    args = parser.parse_args(arguments)
    try:
        network = from_junyanz(args.checkpoint, dropout=not args.no_dropout, mode=args.mode)
        network.save_pretrained(args.out)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    settings = ", ".join(f"{k}={v!r}" for k, v in network.config.items() if v not in (None, (), []))
    print(f"{type(network).__name__}({settings})\nwritten to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
