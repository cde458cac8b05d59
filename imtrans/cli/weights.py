"""The flags that name saved weights, and the network that they name."""

import argparse

from imtrans.convert import load_pretrained
from imtrans.hub.pretrained import Pretrained

NAME = "a folder, USER/REPO on the Hub, or a name in imtrans.published_weights(), such as junyanz/cyclegan/horse2zebra"


def add_weights_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that go with the name of saved weights, and the device."""
    parser.add_argument("--subfolder", metavar="NAME", help="subfolder of the folder or repo, such as to_source")
    parser.add_argument("--revision", help="branch, tag or commit of the repo")
    parser.add_argument("--sha256", metavar="DIGEST", help="that the file of published weights must have")


def load_weights(name: str, args: argparse.Namespace, device: str = "cpu") -> Pretrained:
    """Load the network `name`, with the flags of `add_weights_flags`. Raises as `imtrans.load_pretrained`."""
    return load_pretrained(name, subfolder=args.subfolder, revision=args.revision, sha256=args.sha256, device=device)
