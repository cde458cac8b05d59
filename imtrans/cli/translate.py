"""Translate an image, or a folder of images, with a trained generator.

imtrans translate --weights runs/facades/generator labels.png --out photo.png
imtrans translate --weights user/repo pictures/ --out translated --compare      # and a page that shows both
imtrans translate --weights user/repo pictures/ --out translated --tile 512     # for images larger than memory
imtrans translate --weights user/repo pictures/ --out translated --samples 4    # four outputs for each image
imtrans translate --weights user/repo pictures/ --out translated --uncertainty 16   # mean of 16, and a map

Images become .png files, arrays (.npy, .npz) .npy files. Images that cannot be read are reported and skipped; the exit
status is then 1.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from imtrans.checks import at_least
from imtrans.cli.comparison import Output, comparison, preview, write_page
from imtrans.cli.weights import NAME, add_weights_flags, load_weights
from imtrans.data.arrays import ARRAY_SUFFIXES, READABLE, array_header
from imtrans.data.codec import PIL_MODES, decode_for
from imtrans.data.images import image_files
from imtrans.errors import ArgumentError, DataError, ImtransError
from imtrans.files import similar_path
from imtrans.hub.pretrained import Pretrained
from imtrans.inference import translate, uncertainty, uncertainty_map
from imtrans.modes import MODES, has_dropout, running_as, uses_input_stats
from imtrans.nn.noise import noise_channels


class Item(NamedTuple):
    """An input, the name of its output, and a small picture of it."""

    source: Path
    name: str
    preview: Image.Image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `imtrans translate`."""
    parser.usage = "%(prog)s --weights NAME INPUT --out OUT [flags]"
    parser.add_argument("input", type=Path, metavar="INPUT", help="image, or folder of images, to translate")
    parser.add_argument("--weights", required=True, metavar="NAME", help=f"generator: {NAME}")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="OUT", help="folder for the outputs, or a file for the output of a "
        "single image (.png, .jpg, ...) or array (.npy)"
    )  # fmt: skip
    parser.add_argument("--compare", action="store_true", help="write a page, OUT/index.html, with inputs and outputs")
    parser.add_argument("--instances", type=Path, metavar="PATH", help="instance ids, under the names of INPUT")
    parser.add_argument("--mode", choices=MODES, help="how norms and dropout run (as saved with the generator)")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="numbered outputs for each image, of a generator with noise"
    )
    parser.add_argument(
        "--uncertainty",
        type=int,
        metavar="N",
        help="the mean of N outputs, and a map of their standard deviation, of a generator with noise or dropout",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the noise, and of the dropout of --mode paper (0)"
    )
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="translate large images in tiles of this size")
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images of one size that are translated together (1)"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    add_weights_flags(parser)
    parser.add_argument("--device", default="auto")


def run(args: argparse.Namespace) -> int:
    """Translate the images. Returns 1 if some were skipped."""
    sources = image_files(args.input, READABLE) if args.input.is_dir() else [args.input]
    if not (sources and args.input.exists()):
        hint = similar_path(args.input)
        raise DataError(f"{args.input} is not an image file, nor a folder of images.{hint}")
    to_file = args.out.suffix.lower() in {*Image.registered_extensions(), ".npy"} and not args.out.is_dir()
    _check_flags(args, to_file)
    # In half precision, CPUs are slow.
    generator = load_weights(args.weights, args, device=args.device, dtype=torch.float32)
    images = not all(map(_is_array, sources))
    if images and generator.colours is None and generator.config.get("out_channels") not in PIL_MODES:
        raise DataError(f"{args.weights} is not a generator whose outputs can be saved as PNG.")
    if args.batch_size > 1:
        _check_batch(generator, args.mode or generator.inference_mode)
    if to_file:
        _make_folder(args.out.parent)
        _translate_to_file(generator, args)
        return 0
    _make_folder(args.out, sources)
    figures, done = [], 0
    with tqdm(total=len(sources), unit="image") as bar:
        for items in _batches(_readable(generator, sources, args, bar), args.batch_size):
            outputs = _translated(generator, [item.source for item in items], args)
            for item, samples in zip(items, outputs, strict=True):
                paths = _sample_paths(args.out / item.name, args)
                for output, path in zip(samples, paths, strict=True):
                    _save(output, path)
                if args.compare:
                    figures.append(comparison(generator, item.source, item.preview, zip(paths, samples, strict=True)))
            done += len(items)
            bar.update(len(items))
    skipped = len(sources) - done
    print(f"{done} of {len(sources)} translated, {skipped} skipped")
    if args.compare:
        print(f"gallery    {write_page(args.out, figures).resolve().as_uri()}")
    return 1 if skipped else 0


def _check_flags(args: argparse.Namespace, to_file: bool) -> None:
    at_least("imtrans translate", "--batch-size", args.batch_size, 1)
    if args.uncertainty is not None and (args.samples is not None or args.batch_size > 1):
        raise ArgumentError("--uncertainty is for one image at a time. Leave out --samples and --batch-size.")
    if not to_file:
        return
    if args.input.is_dir():
        raise DataError(f"{args.out} is the name of an image file, and {args.input} is a folder. Give --out a folder.")
    if _is_array(args.input) != (args.out.suffix.lower() == ".npy"):
        raise DataError(f"{args.out} does not fit {args.input}: an array becomes a .npy file, an image an image file.")
    if args.compare:
        raise ArgumentError(f"--compare writes a page to a folder, and --out is the file {args.out}. Give a folder.")


def _check_batch(generator: nn.Module, mode: str) -> None:
    """Raise an ArgumentError if an output would depend on the other images of its batch."""
    with running_as(generator, mode):
        norms = [m for m in generator.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        mixes = any(map(uses_input_stats, norms))
    random = noise_channels(generator) > 0 or (mode == "paper" and has_dropout(generator))
    if mixes or random:
        why = f"batch norms take the statistics of the batch in the mode {mode}" if mixes else "its outputs are random"
        advice = "Use --batch-size 1" + (", or --mode eval." if not noise_channels(generator) else ".")
        raise ArgumentError(
            f"--batch-size is for generators that translate each image of a batch as they do alone, and {why}. {advice}"
        )


def _readable(
    generator: Pretrained, sources: Sequence[Path], args: argparse.Namespace, bar: "tqdm[Any]"
) -> Iterator[Item]:
    """Yield the images that can be read, and report the others."""
    for source, name in zip(sources, _output_names(sources), strict=True):
        try:
            small = preview(generator, source)
            if _is_array(source):
                decode_for("translate", source, generator, instances=_instances_of(source, args))  # its channels
        except ImtransError as error:
            name_it = "" if isinstance(error, DataError) else f"{source}: "  # a DataError names the file
            bar.write(f"skipped: {name_it}{error}", file=sys.stderr)
            bar.update()
        else:
            yield Item(source, name, small)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield successive images of one size, at most `size` at a time."""
    if size == 1:
        yield from ([item] for item in items)
        return
    for _, group in groupby(items, key=lambda item: (_is_array(item.source), array_header(item.source)[0])):
        while batch := list(islice(group, size)):
            yield batch


def _translate_to_file(generator: nn.Module, args: argparse.Namespace) -> None:
    paths = _sample_paths(args.out, args)
    for path in paths:
        if path.exists() and path.samefile(args.input):
            raise DataError(f"{path} is the input, which would be overwritten. Give another file with --out.")
    (outputs,) = _translated(generator, [args.input], args)
    for output, path in zip(outputs, paths, strict=True):
        _save(output, path)
        print(f"output     {path}")


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in ARRAY_SUFFIXES


def _instances_of(source: Path, args: argparse.Namespace) -> Path | None:
    folder: Path | None = args.instances
    return folder / source.name if folder and folder.is_dir() else folder


def _sample_paths(path: Path, args: argparse.Namespace) -> list[Path]:
    """Return `path`; with --samples ``a-1.png``, ``a-2.png``, ...; with --uncertainty also ``a-uncertainty.png``."""
    if args.uncertainty is not None:
        return [path, path.with_stem(f"{path.stem}-uncertainty")]
    numbers = range(1, (args.samples or 0) + 1)
    return [path] if args.samples is None else [path.with_stem(f"{path.stem}-{number}") for number in numbers]


def _translated(generator: nn.Module, sources: list[Path], args: argparse.Namespace) -> list[list[Output]]:
    """Translate images of one size. Returns the outputs of each image: one or more, see `_sample_paths`."""
    options: dict[str, Any] = {"mode": args.mode, "tile": args.tile, "precision": args.precision, "seed": args.seed}
    instances: Any = [_instances_of(source, args) for source in sources] if args.instances else None
    try:
        if args.uncertainty is not None:
            (source,), (objects,) = sources, instances or [None]
            mean, std = uncertainty(generator, source, instances=objects, samples=args.uncertainty, **options)
            return [[mean, std[0].cpu().numpy() if _is_array(source) else uncertainty_map(std)]]
        outputs = translate(generator, sources, instances=instances, samples=args.samples, **options)
    except torch.OutOfMemoryError:
        smaller = " and a smaller --batch-size" if len(sources) > 1 else ""
        raise DataError(f"{sources[0]} is too large for the memory of the device. Use --tile 512{smaller}.") from None
    # With --samples, translate returns a list for each sample.
    return [list(each) for each in zip(*([outputs] if args.samples is None else outputs), strict=True)]


def _make_folder(folder: Path, sources: Sequence[Path] = ()) -> None:
    try:
        if folder.resolve() in {source.parent.resolve() for source in sources}:
            raise OSError(None, "it is the folder of the inputs, which would be overwritten")
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DataError(f"{folder} is a file. Give a folder with --out, or a new image file for one image.") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be used: {error.strerror}. Give another folder with --out.") from error


def _output_names(sources: Sequence[Path]) -> list[str]:
    """Return a unique name for each image: ``a.png``, then ``a.jpg.png``, then ``a.jpg-2.png``; ``.npy`` for arrays."""
    names: dict[str, None] = {}
    for source in sources:
        suffix = ".npy" if _is_array(source) else ".png"
        stems = chain([source.stem, source.name], (f"{source.name}-{number}" for number in count(2)))
        names[next(f"{stem}{suffix}" for stem in stems if f"{stem}{suffix}" not in names)] = None
    return list(names)


def _save(output: Output, path: Path) -> None:
    if isinstance(output, Image.Image) and output.mode == "F":  # floats in [0, 1]; PNG has no float mode
        output = output.point(lambda value: value * 255 + 0.5).convert("L")
    try:
        np.save(path, output) if isinstance(output, np.ndarray) else output.save(path)
    except (OSError, ValueError) as error:  # a format may not have the channels
        raise DataError(f"{path} cannot be written: {error}. Give another name with --out.") from error
