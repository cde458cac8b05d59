"""Translate an image, or a folder of images, with a trained generator.

python examples/translate.py --weights runs/facades/generator --input labels.png --out photo.png
python examples/translate.py --weights user/repo --input DIR --out translated --tile 512
python examples/translate.py --weights user/repo --input DIR --out translated --samples 4      # four for each image
"""

import argparse
import base64
import io
import os
import sys
from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain, count
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from imtrans import load_pretrained, translate
from imtrans.data.arrays import ARRAY_SUFFIXES, READABLE, load_array
from imtrans.data.codec import PIL_MODES, decode, decode_for
from imtrans.data.images import image_files, to_image
from imtrans.errors import DataError, ImtransError
from imtrans.files import similar_path
from imtrans.hub.pretrained import Pretrained
from imtrans.runtime import pick_device


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", required=True, metavar="NAME", help="generator: a folder, USER/REPO on the "
        "Hub, or a name in imtrans.published_weights(), such as junyanz/cyclegan/horse2zebra"
    )  # fmt: skip
    parser.add_argument(
        "--input", required=True, type=Path, metavar="FILE_OR_FOLDER", help="image or folder of images to translate"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE_OR_DIR", help="folder for the outputs and the gallery, or a "
        "file for the output of a single image (.png, .jpg, ...) or array (.npy)"
    )  # fmt: skip
    parser.add_argument(
        "--instances",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="instance ids, under the names of --input",
    )
    parser.add_argument(
        "--mode",
        choices=["eval", "batch_stats", "paper"],
        help="how normalisation and dropout run (as saved with the generator)",
    )
    parser.add_argument("--samples", type=int, help="numbered outputs for each image, of a generator with noise")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, and of the dropout of --mode paper (0)")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="translate large images in tiles of this size")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        return run(args)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    sources = image_files(args.input, READABLE) if args.input.is_dir() else [args.input]
    if not (sources and args.input.exists()):
        hint = similar_path(args.input)
        raise DataError(f"{args.input} is not an image file, nor a folder of images.{hint}")
    to_file = args.out.suffix.lower() in {*Image.registered_extensions(), ".npy"} and not args.out.is_dir()
    if to_file and args.input.is_dir():
        raise DataError(f"{args.out} is the name of an image file, and --input is a folder. Give --out a folder.")
    if to_file and is_array(args.input) != (args.out.suffix.lower() == ".npy"):
        raise DataError(f"{args.out} does not fit {args.input}: an array becomes a .npy file, an image an image file.")
    generator = load_pretrained(args.weights).to(pick_device(args.device))
    images = not all(map(is_array, sources))
    if images and generator.colours is None and generator.config.get("out_channels") not in PIL_MODES:
        raise DataError(f"{args.weights} is not a generator whose outputs can be saved as PNG.")
    if to_file:
        make_folder(args.out.parent)
        translate_to_file(generator, args)
        return 0
    make_folder(args.out, sources)
    figures, skipped = [], 0
    bar = tqdm(zip(sources, output_names(sources), strict=True), total=len(sources), unit="image")
    for source, name in bar:
        try:
            before = thumbnail(source, generator)
            if is_array(source):
                decode_for("translate", source, generator, instances=instances_of(source, args))  # checks the channels
        except ImtransError as error:
            name_it = "" if isinstance(error, DataError) else f"{source}: "  # a DataError names the file
            bar.write(f"skipped: {name_it}{error}", file=sys.stderr)
            skipped += 1
            continue
        outputs, paths = translated(generator, source, args), sample_paths(args.out / name, args)
        afters = [thumbnail(output, generator) if is_array(source) else None for output in outputs]
        figures.append(figure(source, before, zip(afters, paths, map(save, outputs, paths), strict=True)))
    print(f"{len(figures)} of {len(sources)} translated, {skipped} skipped")
    print(f"gallery    {write_page(args.out, figures).resolve().as_uri()}")
    return 1 if skipped else 0


def translate_to_file(generator: nn.Module, args: argparse.Namespace) -> None:
    paths = sample_paths(args.out, args)
    for path in paths:
        if path.exists() and path.samefile(args.input):
            raise DataError(f"{path} is the input, which would be overwritten. Give another file with --out.")
    for output, path in zip(translated(generator, args.input, args), paths, strict=True):
        save(output, path)
        print(f"output     {path}")


def is_array(path: Path) -> bool:
    return path.suffix.lower() in ARRAY_SUFFIXES


def instances_of(source: Path, args: argparse.Namespace) -> Path | None:
    folder: Path | None = args.instances
    return folder / source.name if folder and folder.is_dir() else folder


def sample_paths(path: Path, args: argparse.Namespace) -> list[Path]:
    """Return `path`, or with --samples ``a-1.png``, ``a-2.png``, ... for ``a.png``."""
    numbers = range(1, (args.samples or 0) + 1)
    return [path] if args.samples is None else [path.with_stem(f"{path.stem}-{number}") for number in numbers]


def translated(generator: nn.Module, source: Path, args: argparse.Namespace) -> list[Image.Image | np.ndarray]:
    options = {"mode": args.mode, "tile": args.tile, "precision": args.precision, "seed": args.seed}
    options |= {"instances": instances_of(source, args), "samples": args.samples}
    try:
        outputs = translate(generator, source, **options)
        return [outputs] if args.samples is None else outputs
    except torch.OutOfMemoryError:
        raise DataError(f"{source} is too large for the memory of the device. Use --tile 512.") from None


def make_folder(folder: Path, sources: Sequence[Path] = ()) -> None:
    try:
        if folder.resolve() in {source.parent.resolve() for source in sources}:
            raise OSError(None, "it is the folder of the inputs, which would be overwritten")
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DataError(f"{folder} is a file. Give a folder with --out, or a new image file for one image.") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be used: {error.strerror}. Give another folder with --out.") from error


def output_names(sources: list[Path]) -> list[str]:
    """Return a unique name for each image: ``a.png``, then ``a.jpg.png``, then ``a.jpg-2.png``; ``.npy`` for arrays."""
    names: dict[str, None] = {}
    for source in sources:
        suffix = ".npy" if is_array(source) else ".png"
        stems = chain([source.stem, source.name], (f"{source.name}-{number}" for number in count(2)))
        names[next(f"{stem}{suffix}" for stem in stems if f"{stem}{suffix}" not in names)] = None
    return list(names)


def thumbnail(picture: Path | np.ndarray, generator: Pretrained) -> str:
    """Return a small copy of an image file, or of up to three channels of an array, as a data URL."""
    if isinstance(picture, Path) and is_array(picture):
        picture = load_array(picture)
    if isinstance(picture, np.ndarray):
        planes = np.atleast_3d(picture)
        picture = planes[..., :3] if planes.shape[2] >= 3 else planes[..., :1]
    channels = picture.shape[2] if isinstance(picture, np.ndarray) else 3
    content, image = io.BytesIO(), to_image(decode("translate", picture, channels, generator.value_range).tensor[0])
    image.thumbnail((480, 480))
    image.save(content, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def save(image: Image.Image | np.ndarray, path: Path) -> tuple[int, int]:
    """Save the output, and return its width and height."""
    if isinstance(image, np.ndarray):
        try:
            np.save(path, image)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error}. Give another name with --out.") from error
        return image.shape[1], image.shape[0]
    if image.mode == "F":  # floats in [0, 1]; PNG has no float mode
        image = image.point(lambda value: value * 255 + 0.5).convert("L")
    try:
        image.save(path)
    except (OSError, ValueError) as error:  # a format may not have the channels
        raise DataError(f"{path} cannot be written: {error}. Give another name with --out.") from error
    return image.size


def figure(source: Path, before: str, outputs: Iterable[tuple[str | None, Path, tuple[int, int]]]) -> str:
    """Return the HTML of an input and its outputs: for each a thumbnail, if the file is no image, its file and size."""
    caption, images, width, height = escape(source.name), "", 0, 0
    for after, path, (width, height) in outputs:
        link = quote(os.fsencode(path.name))
        images += (
            f'<a href="{link}"><img src="{after or link}" width="{width}" height="{height}" loading="lazy" '
            f'alt="{caption}, translated"></a>'
        )
    return (
        f'<figure><div><img src="{before}" alt="{caption}">{images}</div><figcaption>{caption}'
        f"<span>{width} × {height}</span></figcaption></figure>\n"
    )


def write_page(out: Path, figures: list[str]) -> Path:
    title = f"{len(figures)} image{'' if len(figures) == 1 else 's'} translated"
    # A file name may hold bytes that are not UTF-8.
    content = PAGE.substitute(title=title, figures="".join(figures)).encode("utf-8", "replace")
    (page := out / "index.html").write_bytes(content)
    return page


PAGE = Template("""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --ink: #1a1e26; --soft: #576070; --edge: #dfe3e9 }
@media (prefers-color-scheme: dark) {
  :root { --page: #0f1217; --card: #181c23; --ink: #e8ebf0; --soft: #9ca6b5; --edge: #2a303a } }
* { box-sizing: border-box; margin: 0 }
body { margin: auto; padding: 2.5rem 1.25rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere } h1 { margin-bottom: 1.5rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 1rem }
figure { background: var(--card); border: 1px solid var(--edge); border-radius: .75rem; padding: 1rem }
div { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem } img { display: block; width: 100%; height: auto }
figcaption { display: flex; justify-content: space-between; gap: 1rem } span { color: var(--soft) }
</style></head><body><h1>$title</h1><main>$figures</main></body></html>""")


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main())
