"""The methods that `imtrans train` knows. Each has a module; the other modules are for all, and for the examples."""

import argparse

from imtrans.cli.command import add_commands

METHODS = {
    "pix2pix": "from pairs of images",
    "cyclegan": "from two sets of images without pairs",
    "colorization": "grey photos to colour, from photos alone",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each method."""
    add_commands(parser, "imtrans.cli.train", METHODS)
