"""Draw the figures of the docs from trained generators and run folders.

python examples/pix2pix_facades.py --recipe paper --out runs/paper
python examples/pix2pix_facades.py --recipe sharp --out runs/sharp
python docs/figures.py runs/paper/generator runs/sharp/generator

Of the page on diversity, with the runs that it names, and of the examples without further flags:

python docs/figures.py --diversity runs/without runs/weight-1
python docs/figures.py --samples runs/edges2photo runs/inpaint runs/superres runs/maps runs/day2night runs/cityscapes

Of the weights in this repository, from their card:

python docs/figures.py --weights
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from imtrans import ProceduralFacades, load_pretrained, translate
from imtrans.data.loader import batches
from imtrans.training.report.image_grid import image_grid, image_grid_png

IMAGES = Path(__file__).parent / "images"
ROWS = 4
GAP = 4  # pixels between the images of a grid
WEIGHTS = Path(__file__).parents[1] / "examples" / "weights" / "facades"


def save_samples(samples: Path, name: str, rows: int = 3) -> None:
    """Save the first rows of a sample grid, source | output | target, as docs/images/NAME.jpg."""
    with Image.open(samples) as grid:
        height = (grid.height + GAP) // ROWS * rows - GAP
        strip = grid.convert("RGB").crop((0, 0, grid.width, height))
    strip.save(IMAGES / f"{name}.jpg", quality=92, subsampling=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="GENERATOR", help="of the recipe paper, and of the recipe sharp")
    parser.add_argument("--diversity", nargs=2, type=Path, metavar="RUN", help="runs without and with a diversity term")
    parser.add_argument("--samples", nargs="*", default=[], type=Path, metavar="RUN", help="run folders of examples")
    parser.add_argument("--weights", action="store_true", help="the card of examples/weights/facades")
    args = parser.parse_args()
    if args.recipes:
        compare_recipes(*args.recipes)
    if args.diversity:
        diversity(*args.diversity)
    for run in args.samples:
        save_samples(max((run / "samples").glob("*.png")), run.name)
    if args.weights:
        save_samples(WEIGHTS / "samples.png", "weights")


def compare_recipes(*generators: str) -> None:
    unseen = next(iter(batches(ProceduralFacades(ROWS, size=128, seed=1, augment=False), ROWS)))
    source, target = unseen["source"], unseen["target"]
    paper, sharp = (
        torch.stack([translate(load_pretrained(folder), image) for image in source]) for folder in generators
    )
    columns = {"source": source, "paper": paper, "sharp": sharp, "target": target}
    (IMAGES / "recipes.png").write_bytes(image_grid_png(columns))
    (IMAGES / "facades.png").write_bytes(image_grid_png({"source": source, "sharp": sharp, "target": target}))


def diversity(without: Path, with_term: Path, *, size: int = 64, rows: int = 3, seed: int = 3) -> None:
    """Draw unseen label maps, three outputs of the run without the term, and five of the other, with the same noise."""
    source = next(iter(batches(ProceduralFacades(rows, size=size, seed=1, augment=False), rows)))["source"]
    columns = {"source": source}
    for run, count in ((without, 3), (with_term, 5)):
        generator = load_pretrained(run / "generator")
        samples = [translate(generator, image, samples=count, seed=seed, mode="batch_stats") for image in source]
        columns |= {f"{run.name} {k + 1}": torch.stack([each[k] for each in samples]) for k in range(count)}
    enlarged = {name: column.repeat_interleave(2, 2).repeat_interleave(2, 3) for name, column in columns.items()}
    image_grid(enlarged).save(IMAGES / "diversity.jpg", quality=80)


if __name__ == "__main__":
    main()
