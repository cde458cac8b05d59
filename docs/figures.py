"""Draw the figures of the docs from trained generators.

python examples/pix2pix_facades.py --recipe paper --out runs/paper
python examples/pix2pix_facades.py --recipe sharp --out runs/sharp
python docs/figures.py runs/paper/generator runs/sharp/generator
python docs/figures.py --samples runs/maps runs/day2night runs/cityscapes      # of the examples without further flags
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from imtrans import ProceduralFacades, load_pretrained, translate
from imtrans.data.loader import batches
from imtrans.training.report.image_grid import image_grid_png

IMAGES = Path(__file__).parent / "images"
ROWS = 4
GAP = 4  # pixels between the images of a grid


def save_samples(run: Path, rows: int = 3) -> None:
    """Save the first rows of the newest samples of a run, source | output | target, as docs/images/NAME.jpg."""
    with Image.open(max((run / "samples").glob("*.png"))) as grid:
        height = (grid.height + GAP) // ROWS * rows - GAP
        strip = grid.convert("RGB").crop((0, 0, grid.width, height))
    strip.save(IMAGES / f"{run.name}.jpg", quality=92, subsampling=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", nargs="?", help="generator of the recipe paper")
    parser.add_argument("sharp", nargs="?", help="generator of the recipe sharp")
    parser.add_argument(
        "--samples", type=Path, nargs="+", default=[], metavar="RUN", help="run folders, for their samples"
    )
    args = parser.parse_args()
    for run in args.samples:
        save_samples(run)
    if args.samples:
        return
    unseen = next(iter(batches(ProceduralFacades(ROWS, size=128, seed=1, augment=False), ROWS)))
    source, target = unseen["source"], unseen["target"]
    paper, sharp = (
        torch.stack([translate(load_pretrained(folder), image) for image in source])
        for folder in (args.paper, args.sharp)
    )
    columns = {"source": source, "paper": paper, "sharp": sharp, "target": target}
    (IMAGES / "recipes.png").write_bytes(image_grid_png(columns))
    (IMAGES / "facades.png").write_bytes(image_grid_png({"source": source, "sharp": sharp, "target": target}))


if __name__ == "__main__":
    main()
