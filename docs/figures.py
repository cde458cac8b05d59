"""Draw the figures of the docs from trained generators.

python examples/pix2pix_facades.py --recipe paper --out runs/paper
python examples/pix2pix_facades.py --recipe sharp --out runs/sharp
python docs/figures.py runs/paper/generator runs/sharp/generator
"""

import argparse
from pathlib import Path

import torch

from imtrans import ProceduralFacades, load_pretrained, translate
from imtrans.data.loader import batches
from imtrans.training.report.image_grid import image_grid_png

IMAGES = Path(__file__).parent / "images"
ROWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", help="generator of the recipe paper")
    parser.add_argument("sharp", help="generator of the recipe sharp")
    args = parser.parse_args()
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
