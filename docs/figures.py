"""Draw the figures of the docs from trained generators.

python examples/pix2pix_facades.py --recipe paper --out runs/paper
python examples/pix2pix_facades.py --recipe sharp --out runs/sharp
python docs/figures.py runs/paper/generator runs/sharp/generator

Of the page on diversity, with the runs that it names:

python docs/figures.py --diversity runs/without runs/weight-1
"""

import argparse
from pathlib import Path

import torch

from imtrans import ProceduralFacades, load_pretrained, translate
from imtrans.data.loader import batches
from imtrans.training.report.image_grid import image_grid, image_grid_png

IMAGES = Path(__file__).parent / "images"
ROWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", nargs="?", help="generator of the recipe paper")
    parser.add_argument("sharp", nargs="?", help="generator of the recipe sharp")
    parser.add_argument(
        "--diversity",
        nargs=2,
        type=Path,
        metavar="RUN",
        help="runs without and with a diversity term: its figure alone",
    )
    args = parser.parse_args()
    if args.diversity:
        diversity(*args.diversity)
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
