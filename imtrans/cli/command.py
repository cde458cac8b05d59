"""The parser of the command `imtrans`, and its entry point.

A subcommand is a module with ``add_arguments(parser)`` and ``run(args)``, which may return an exit status. If flags can
contradict one another, it has ``check(parser, args)``. Its docstring is the text of ``--help``.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from imtrans.errors import ImtransError
from imtrans.version import __version__

COMMANDS = {
    "train": "train networks on a folder of images",
    "translate": "translate images with a trained generator",
    "info": "describe a saved network, and measure its time and memory",
    "export": "write a generator for programs without PyTorch",
    "convert": "convert a checkpoint of pytorch-CycleGAN-and-pix2pix",
}
_formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)


class Parser(argparse.ArgumentParser):
    """Parser of a subcommand. It imports the `module` of the subcommand when it parses, because PyTorch is slow."""

    def __init__(self, *, module: str | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_formatter, **options)
        self._module = module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        module: Any = None if self._module is None else import_module(self._module)
        if module is not None:
            self.description = module.__doc__
            module.add_arguments(self)
            self.set_defaults(run=getattr(module, "run", None))
        if not args and self._subparsers is not None:
            self.print_help(sys.stderr)
            self.exit(2)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {shlex.join(unknown)}")
        if hasattr(module, "check"):
            module.check(self, found)
        return found, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}. See {self.prog} --help.\n")


class SizeAction(argparse.Action):
    """Stores one number as it is, and two as ``(height, width)``."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if len(values) > 2:
            parser.error(f"argument {self.option_strings[0]}: give one number, or height and width")
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


def add_commands(parser: argparse.ArgumentParser, package: str, commands: Mapping[str, str]) -> None:
    """Add subcommands to `parser`, each with its help text and a module of its name in `package`."""
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for name, text in commands.items():
        subparsers.add_parser(name, help=text, module=f"{package}.{name}")


def command_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="imtrans",
        description="Image-to-image translation: train networks, and use trained ones.",
        epilog="imtrans COMMAND --help describes a command.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"imtrans {__version__}")
    add_commands(parser, "imtrans.cli", COMMANDS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default the ones of the process. Returns its exit status.

    The status is 0 for success, 1 for an error, 2 for wrong arguments, and 130 after Ctrl-C. An error is one line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = command_parser().parse_args(words)
        args.command_line = shlex.join(["imtrans", *words])
        import torch  # not before the arguments are parsed: see Parser

        torch.set_float32_matmul_precision("high")
        status = int(args.run(args) or 0)
        sys.stdout.flush()
        return status
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the program that reads the output has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
