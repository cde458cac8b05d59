"""``python -m imtrans``: the command `imtrans`."""

from imtrans.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
