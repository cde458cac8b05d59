"""Train the generator in examples/weights/facades, which draws a house from a label map.

python examples/train_weights.py                        # saves it to runs/weights: about an hour on one CPU core

The houses are procedural facades in clear weather, whose sky and light are always the same. The recipe is "sharp". The
training begins with small pictures, in which a step takes a quarter of the time, and ends with large ones.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from train_segmenter import fit, read_palette, score, translations

from imtrans import (
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    UNetGenerator,
    evaluate,
    init_net,
    load_pretrained,
)
from imtrans.cli.train.run import main
from imtrans.data.loader import batches
from imtrans.methods.recipes import RECIPES, unet_depth
from imtrans.training.publish import TrainingSummary, publish
from imtrans.version import __version__

HELD_OUT = 20  # houses
NUM_ROWS = 4  # of the card's picture
SEGMENTER = {"epochs": 4, "base_channels": 8, "precision": "fp32"}  # that scores the pictures
SEGMENTER_HOUSES, SEGMENTER_SEED = 100, 2**20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--houses", type=int, default=1500, help="in the training set (1500)")
    parser.add_argument("--size", type=int, default=256, help="height and width of the large pictures (256)")
    parser.add_argument("--epochs", type=int, nargs=2, default=(6, 5), help="with small and with large pictures (6 5)")
    parser.add_argument("--base-channels", type=int, default=16, help="width of both networks (16)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/weights"))
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    draw = partial(ProceduralFacades, augment=False, weather="clear")
    method = networks(args)
    for size, epochs, lr_policy in zip((args.size // 2, args.size), args.epochs, ("constant", "cosine"), strict=True):
        train = draw(args.houses, size=size, seed=2 * args.seed)
        trainer = Trainer(
            method, train, out=None, epochs=epochs, lr_policy=lr_policy, lr=4e-4, batch_size=4, ema=0.998,
            keep_data=False, device=args.device, seed=args.seed,
        )  # fmt: skip
        trainer.fit()
    with trainer.averaged():
        save(args, trainer, draw(HELD_OUT, size=args.size, seed=2 * args.seed + 1))


def networks(args: argparse.Namespace) -> Pix2Pix:
    """Make the networks of the recipe, without dropout, for pictures of both sizes."""
    parts, width = RECIPES["sharp"][Pix2Pix], {"base_channels": args.base_channels}
    depth = unet_depth(args.size // 2)
    generator = UNetGenerator(depth=depth, dropout=(), **width, **parts.generator)
    discriminator = PatchDiscriminator(6, **width, **parts.discriminator)
    generator = init_net(generator, args.device, seed=args.seed)
    return Pix2Pix(generator, init_net(discriminator, args.device, seed=args.seed + 1), **parts.method)


def save(args: argparse.Namespace, trainer: Trainer, val: ProceduralFacades) -> None:
    """Save the generator in half precision, with a card that has its scores on `val`."""
    generator, device = trainer.method.generator, trainer.device
    generator.inference_mode = "eval"
    generator.save_pretrained(args.out, dtype=torch.float16)
    generator = load_pretrained(args.out, device=device)  # the rounded weights are scored
    fakes = [fake.cpu() for fake in translations(generator, val, device, "eval")]
    scores = evaluate(generator, val, metrics=("l1", "psnr", "swd", "grid")) | segmenter_scores(fakes, val, device)
    training = {
        "command": shlex.join(["python", *sys.argv]),
        "data": f"{trainer.train_data}; {args.epochs[0]} epochs in half the size before",
        "epochs": args.epochs[1],
        "recipe": "sharp, without dropout, with averaged weights",
        "precision": trainer.precision,
        "seed": args.seed,
        "version": __version__,
        "torch": torch.__version__,
    }
    columns = {"source": next(iter(batches(val, NUM_ROWS)))["source"], "fake": torch.cat(fakes[:NUM_ROWS])}
    publish(args.out, generator, TrainingSummary(training, {"eval": scores, "best": "eval"}, columns))
    generator.save_pretrained(args.out, dtype=torch.float16)
    print("\n".join(f"{name:<12} {value:.4g}" for name, value in scores.items()))
    print(f"generator    {args.out}")


def segmenter_scores(fakes: list[Tensor], val: ProceduralFacades, device: torch.device) -> dict[str, float]:
    """Return the IoU that a segmenter trained on drawn pictures has on the outputs `fakes`, and on their targets."""
    palette = read_palette(None)
    houses = ProceduralFacades(SEGMENTER_HOUSES, size=val.jitter.size, seed=SEGMENTER_SEED, weather=val.weather)
    segmenter = fit(houses, palette, device=device, **SEGMENTER)
    targets = [batch["target"] for batch in batches(val, 1)]
    iou, iou_of_targets = (score(photos, val, segmenter, palette)["iou"] for photos in (fakes, targets))
    return {"iou": iou, "iou_of_targets": iou_of_targets}


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
