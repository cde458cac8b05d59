"""Serve a page that translates uploaded pictures and drawings with a saved generator, made with Gradio.

pip install -c constraints.txt -e ".[app]"
python examples/app.py                                        # label maps to facades
python examples/app.py --weights runs/mine/generator          # a folder, USER/REPO, or a published name
python examples/app.py --weights NAME --space DIR             # write the folder of a Hugging Face Space
python examples/app.py --weights NAME --push-space USER/NAME  # push it
"""

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import nn

from imtrans import load_pretrained, translate, uncertainty, uncertainty_map
from imtrans.checks import at_least
from imtrans.cli.train.flags import make_parser
from imtrans.cli.train.run import main
from imtrans.colours import PALETTES, Palette, check_palette
from imtrans.data.images import to_image, to_tensor
from imtrans.data.labels import colours_from_ids, ids_from_colours
from imtrans.errors import ArgumentError, ImtransError
from imtrans.hub.client import push
from imtrans.modes import has_dropout
from imtrans.nn.noise import noise_channels
from imtrans.runtime import pick_device
from imtrans.version import __version__

HERE = Path(__file__).parent
WEIGHTS = (HERE / "weights", HERE / "weights" / "facades")  # in a Space, and in the repository
CARD = """---
title: {title}
emoji: 🖌️
colorFrom: indigo
colorTo: blue
sdk: gradio
sdk_version: {gradio}
app_file: app.py
tags: [image-to-image, imtrans]
---

Upload a picture or draw one, and a generator of [imtrans](https://pypi.org/project/imtrans/) translates it.
"""


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--weights", metavar="NAME", help="a folder, USER/REPO, or a name in published_weights()")
    parser.add_argument("--palette", choices=PALETTES, help="colours to draw with (the generator's own, or facades)")
    parser.add_argument("--size", type=int, default=256, help="height and width of a drawing (256)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--port", type=int, default=7860, help="of the server (7860)")
    parser.add_argument("--space", type=Path, metavar="DIR", help="write a folder for a Space, and serve nothing")
    parser.add_argument("--push-space", metavar="USER/NAME", help="push that folder to the Hugging Face Hub")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    default = next((folder for folder in WEIGHTS if (folder / "config.json").exists()), WEIGHTS[-1])
    generator = load_pretrained(args.weights or default)
    if args.push_space:
        with TemporaryDirectory() as folder:
            save_space(generator, Path(folder), args.push_space)
            print(f"space      {push(Path(folder), args.push_space, space_sdk='gradio')}")
    elif args.space:
        save_space(generator, args.space, args.space.name)
        print(f"space      {args.space}")
    else:
        app = page(generator.to(pick_device(args.device)), args.palette, at_least("app", "--size", args.size, 1))
        app.launch(server_port=args.port)


def page(generator: nn.Module, palette: str | None = None, size: int = 256) -> Any:
    """Return the page: a Gradio app with the endpoints ``/translate`` for a picture, and ``/draw`` for a drawing.

    For a generator with noise or dropout, ``/uncertainty`` and ``/draw_uncertainty`` give the map of the uncertainty.
    """
    gradio = import_gradio()
    colours = check_palette("app", palette or generator.palette or "facades")

    def shown(make: Callable[[Image.Image, int], Image.Image], of_drawing: bool) -> Callable[..., Image.Image | None]:
        def show(given: Any, seed: float) -> Image.Image | None:
            picture = nearest_colours(given["composite"], colours) if of_drawing else given
            try:
                return picture and make(picture, int(seed))
            except ImtransError as error:
                raise gradio.Error(str(error)) from error

        return show

    def output(picture: Image.Image, seed: int) -> Image.Image:
        return translate(generator, picture, seed=seed)

    def uncertain(picture: Image.Image, seed: int) -> Image.Image:
        return uncertainty_map(uncertainty(generator, picture, seed=seed).std)

    def map_button(given: Any, *, of_drawing: bool, name: str) -> None:
        if is_random:
            button = gradio.Button("Show where the output is uncertain")
            heat = gradio.Image(label="Uncertainty of 16 outputs", interactive=False, format="png")
            button.click(shown(uncertain, of_drawing), [given, seed], heat, api_name=name)

    is_random = noise_channels(generator) > 0 or has_dropout(generator)
    with gradio.Blocks(title="imtrans") as app:
        gradio.Markdown(f"# {type(generator).__name__}\nUpload a picture or draw one. The translation is on the right.")
        seed = gradio.Number(0, label="Seed of the noise", precision=0, visible=noise_channels(generator) > 0)
        # A drawing has colours of classes; other spaces of colours, and maps of ids, are for files.
        with gradio.Tab("Draw", visible=generator.colours is None and generator.num_labels is None), gradio.Row():
            drawing = gradio.ImageEditor(
                Image.new("RGB", (size, size), colours[0]),
                type="pil",
                label="Drawing",
                sources=(),
                layers=False,
                transforms=(),
                canvas_size=(size, size),
                fixed_canvas=True,
                eraser=False,
                brush=gradio.Brush(
                    colors=[f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours],
                    color_mode="fixed",
                    default_size=max(1, size // 16),
                ),
            )
            result = gradio.Image(label="Translation", interactive=False, format="png")
            drawing.change(shown(output, True), [drawing, seed], result, api_name="draw", show_progress="hidden")
            map_button(drawing, of_drawing=True, name="draw_uncertainty")
        with gradio.Tab("Upload"), gradio.Row():
            picture = gradio.Image(type="pil", label="Picture", image_mode=None)
            result = gradio.Image(label="Translation", interactive=False, format="png")
            picture.change(shown(output, False), [picture, seed], result, api_name="translate")
            map_button(picture, of_drawing=False, name="uncertainty")
    return app


def import_gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ModuleNotFoundError:
        raise ArgumentError('app: gradio is not installed. Run `pip install "imtrans[app]"`.') from None
    return gradio


def nearest_colours(drawing: Image.Image, colours: Palette) -> Image.Image:
    """Give each pixel the nearest of `colours`: a brush blends its colour with the others at the edge of a stroke."""
    ids = ids_from_colours(to_tensor(drawing.convert("RGB"))[None], colours)
    return to_image(colours_from_ids(ids, colours)[0])


def save_space(generator: nn.Module, folder: Path, name: str) -> None:
    """Write this script, the weights, the requirements and the card of a Space into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    generator.save_pretrained(folder / "weights")
    shutil.copyfile(__file__, folder / "app.py")
    (folder / "requirements.txt").write_text(f"imtrans[app]=={__version__}\n")
    (folder / "README.md").write_text(CARD.format(title=name.split("/")[-1], gradio=import_gradio().__version__))


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
