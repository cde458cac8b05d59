"""The flags that name saved weights, and the network that they name."""

import argparse

import torch

from imtrans.convert import load_pretrained
from imtrans.hub.pretrained import Pretrained

NAME = "a folder, USER/REPO on the Hub, or a name in imtrans.published_weights(), such as junyanz/cyclegan/horse2zebra"


def add_weights_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that go with the name of saved weights."""
    parser.add_argument("--subfolder", metavar="NAME", help="subfolder of the folder or repo, such as to_source")
    parser.add_argument("--revision", help="branch, tag or commit of the repo")
    parser.add_argument("--sha256", metavar="DIGEST", help="that the file of published weights must have")


def load_weights(
    name: str, args: argparse.Namespace, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> Pretrained:
    """Load the network `name`, with the flags of `add_weights_flags`. Raises as `imtrans.load_pretrained`."""
    flags = {"subfolder": args.subfolder, "revision": args.revision, "sha256": args.sha256}
    return load_pretrained(name, device=device, dtype=dtype, **flags)
