"""Pairs in the rows of a data set of the datasets library, which ``--data hf:USER/NAME`` names."""

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, cast

from imtrans.data import PairedImages
from imtrans.errors import ArgumentError, DataError, join_names, one_line

VALIDATION = ("val", "validation", "test")


def pairs_of_rows(args: argparse.Namespace, **settings: Any) -> tuple[PairedImages, PairedImages | None]:
    """Return the pairs in the rows of --data hf:, for training and, if there is such a split, for validation."""
    splits = load_splits(args.data)
    a, b = args.columns or ("imageA", "imageB")
    source, target = (a, b) if args.direction == "AtoB" else (b, a)

    def pairs(split: str, **more: Any) -> PairedImages:
        rows, name = splits[split], f"{args.data}, {split}"
        return PairedImages.from_rows(rows, source, target, name=name, **{**settings, **more})

    train, val = choose_splits(args.data, splits, args.splits)
    return pairs(train, seed=args.seed), None if val is None else pairs(val, augment=False)


def load_splits(data: str) -> Mapping[str, Any]:
    """Load the rows of ``hf:NAME`` by split. NAME is a data set on the Hub, or a folder that load_dataset takes."""
    if find_spec("datasets") is None:
        raise ArgumentError(
            f'--data {data} needs datasets, which is not installed. Install it with: pip install "imtrans[datasets]".'
        )
    from datasets import load_dataset  # optional, and slow to import

    try:
        return cast(Mapping[str, Any], load_dataset(data.removeprefix("hf:")))
    except Exception as error:  # it raises errors of many libraries
        raise DataError(
            f"--data {data} cannot be loaded by the datasets library: {one_line(str(error)).rstrip('.')}. Check the "
            "name and the network."
        ) from error


def choose_splits(data: str, splits: Mapping[str, Any], asked: list[str] | None) -> tuple[str, str | None]:
    """Return the names of the splits for training and validation; `asked` is --splits."""
    train, *others = asked or ["train"]
    held_out = others or ([] if asked else [name for name in VALIDATION if name in splits][:1])
    if missing := [name for name in (train, *held_out) if name not in splits]:
        raise DataError(
            f"--data {data} has no split {missing[0]!r}, but {join_names([repr(name) for name in splits])}. Name the "
            "ones for training and, if there is one, for validation: --splits TRAIN VAL."
        )
    return train, held_out[0] if held_out else None
