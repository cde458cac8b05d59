"""The data that the flags name: pairs of a folder, photos of a folder, or procedural images."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from imtrans.cli.train.flags import PROCEDURAL, REAL, data_arguments, set_defaults
from imtrans.cli.train.rows import pairs_of_rows
from imtrans.data import DerivedPairs, PairedImages, ProceduralFacades
from imtrans.data.procedural import ProceduralPairs
from imtrans.errors import DataError

T = TypeVar("T")


def pairs_of(args: argparse.Namespace, procedural: type[ProceduralPairs], **settings: Any) -> tuple[Any, Any]:
    """Return pairs for training and validation, from --data with these `settings`, or `procedural` ones."""
    if args.data is None:
        set_defaults(args, **PROCEDURAL)
        return drawn(args, procedural, direction=args.direction)
    set_defaults(args, **REAL)
    settings = {**data_arguments(args), **settings}
    if isinstance(args.data, str):
        return pairs_of_rows(args, **settings)
    return pairs_of_folder(args.data, seed=args.seed, direction=args.direction, **settings)


def pairs_of_folder(folder: Path, *, seed: int, **settings: Any) -> tuple[PairedImages, PairedImages | None]:
    """Return the pairs in train/, and the ones in val/ or test/."""
    if folder.is_dir() and not (folder / "train").is_dir():
        raise DataError(f"{folder} has no folder train/. Put the training pairs there, and validation pairs in val/.")
    val = held_out(folder)
    train = PairedImages(folder / "train", seed=seed, **settings)
    return train, None if val is None else PairedImages(val, augment=False, **settings)


def photo_pairs(args: argparse.Namespace, source: Any) -> tuple[DerivedPairs, DerivedPairs | None]:
    """Make pairs for training and validation from the photos of --data, or of procedural facades.

    `source` is as for `imtrans.DerivedPairs`. Flags that are not set get their defaults.
    """
    if args.data is None:
        set_defaults(args, **args.procedural)
        train, val = drawn(args, ProceduralFacades)
        return DerivedPairs(train, source), DerivedPairs(val, source)
    set_defaults(args, **REAL)
    settings = {"seed": args.seed, **data_arguments(args)}
    if not (args.data / "train").is_dir():
        return DerivedPairs(args.data, source, **settings), None
    folder = held_out(args.data)
    pairs = DerivedPairs(args.data / "train", source, **settings)
    return pairs, None if folder is None else DerivedPairs(folder, source, augment=False, **settings)


def drawn(args: argparse.Namespace, procedural: Callable[..., T], **settings: Any) -> tuple[T, T]:
    """Return 400 `procedural` samples for training and 20 others for validation."""
    make = partial(procedural, size=args.size, **settings)
    return make(400, seed=2 * args.seed), make(20, seed=2 * args.seed + 1, augment=False)


def held_out(folder: Path) -> Path | None:
    """Return the folder of validation data in `folder`: val/ or test/."""
    return next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)
