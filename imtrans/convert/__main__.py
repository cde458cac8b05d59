"""``python -m imtrans.convert``: the same as ``imtrans convert``."""

import sys
from collections.abc import Sequence

from imtrans.cli.command import main as command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `imtrans convert`. Returns its exit status."""
    return command(["convert", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    raise SystemExit(main())
