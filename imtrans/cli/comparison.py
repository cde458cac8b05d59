"""A page that shows images beside their translations. It opens from the disk, and names only files beside it."""

import base64
import io
import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from imtrans.data.arrays import ARRAY_SUFFIXES, load_array
from imtrans.data.codec import decode
from imtrans.data.images import to_image
from imtrans.errors import DataError, counted
from imtrans.files import disk_errors, write_atomic
from imtrans.hub.pretrained import Pretrained

Output = Image.Image | np.ndarray[Any, Any]


def preview(generator: Pretrained, picture: Path | np.ndarray[Any, Any]) -> Image.Image:
    """Return a small copy of an image file or array that `generator` takes or gives; of an array up to three channels.

    Raises:
        DataError, ArgumentError: the file cannot be read, or has values of another range.
    """
    if isinstance(picture, Path) and picture.suffix.lower() in ARRAY_SUFFIXES:
        picture = load_array(picture)
    if isinstance(picture, np.ndarray):
        planes = np.atleast_3d(picture)
        picture = planes[..., :3] if planes.shape[2] >= 3 else planes[..., :1]
    channels = picture.shape[2] if isinstance(picture, np.ndarray) else 3
    image = to_image(decode("translate", picture, channels, generator.value_range).tensor[0])
    image.thumbnail((480, 480))
    return image


def comparison(generator: Pretrained, source: Path, before: Image.Image, outputs: Iterable[tuple[Path, Output]]) -> str:
    """Return the HTML of an input, whose `preview` is `before`, and of its outputs, each with its file."""
    caption, images, width, height = escape(source.name), "", 0, 0
    for path, output in outputs:
        (height, width) = output.shape[:2] if isinstance(output, np.ndarray) else output.size[::-1]
        link = quote(os.fsencode(path.name))
        shown = _data_url(preview(generator, output)) if isinstance(output, np.ndarray) else link
        images += (
            f'<a href="{link}"><img src="{shown}" width="{width}" height="{height}" loading="lazy" '
            f'alt="{caption}, translated"></a>'
        )
    return (
        f'<figure><div><img src="{_data_url(before)}" alt="{caption}">{images}</div><figcaption>{caption}'
        f"<span>{width} × {height}</span></figcaption></figure>\n"
    )


def write_page(folder: Path, comparisons: list[str]) -> Path:
    """Write ``index.html`` to `folder`. Returns its path; raises a DataError if it cannot be written."""
    page, title = folder / "index.html", f"{counted(len(comparisons), 'image')} translated"
    # A file name may hold bytes that are not UTF-8.
    content = PAGE.substitute(title=title, figures="".join(comparisons)).encode("utf-8", "replace")
    with disk_errors(DataError, f"{page} cannot be written", "Make room, or give another folder with --out."):
        write_atomic(page, content)
    return page


def _data_url(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


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
