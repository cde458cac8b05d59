"""Train the generator in examples/weights/facades, which draws a house from a label map.

python examples/train_weights.py                        # saves it to runs/weights; 35 minutes on one CPU core

The houses are procedural facades in clear weather, whose sky and light are always the same. The recipe is "sharp", with
a level of the U-Net at full resolution. The training begins with small crops of the pictures, in which a step takes a
third of the time, and ends with whole ones.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.optim.swa_utils import update_bn
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
from imtrans.cli.train.flags import make_parser
from imtrans.cli.train.run import main
from imtrans.data.crop_dataset import Jitter
from imtrans.data.loader import batches
from imtrans.methods.recipes import RECIPES, unet_depth
from imtrans.training.publish import TrainingSummary, publish
from imtrans.version import __version__

BATCH_SIZE = 4
HELD_OUT = 20  # houses
NUM_ROWS = 4  # of the card's picture
SEGMENTER = {"epochs": 8, "base_channels": 16, "precision": "fp32"}  # that scores the pictures
SEGMENTER_HOUSES, SEGMENTER_SEED = 200, 2**20


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--houses", type=int, default=1000, help="in the training set (1000)")
    parser.add_argument("--size", type=int, default=256, help="height and width of the pictures (256)")
    parser.add_argument("--epochs", type=int, nargs=2, default=(12, 10), help="of crops, and of pictures (12 10)")
    parser.add_argument("--base-channels", type=int, default=16, help="width of both networks (16)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/weights"))
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    draw = partial(ProceduralFacades, size=args.size, weather="clear")
    train, method = draw(args.houses, seed=2 * args.seed), networks(args)
    for size, epochs, lr_policy in zip((args.size // 2, args.size), args.epochs, ("constant", "cosine"), strict=True):
        train.jitter = Jitter(size, load_size=args.size, flip=False)  # the light comes from the left
        trainer = Trainer(
            method, train, out=None, epochs=epochs, lr_policy=lr_policy, lr=4e-4, batch_size=BATCH_SIZE, ema=0.998,
            keep_data=False, device=args.device, seed=args.seed,
        )  # fmt: skip
        trainer.fit()
    with trainer.averaged():
        # The average of the weights has other statistics than the average of the statistics.
        update_bn((batch["source"].to(trainer.device) for batch in batches(train, BATCH_SIZE)), method.generator)
        save(args, trainer, draw(HELD_OUT, seed=2 * args.seed + 1, augment=False))


def networks(args: argparse.Namespace) -> Pix2Pix:
    """Make the networks of the recipe, with a generator that has a level at full resolution and no dropout."""
    parts, width = RECIPES["sharp"][Pix2Pix], args.base_channels
    halvings = range(unet_depth(args.size // 2))
    channels = (width, *(width * min(2**i, 8) for i in halvings))
    generator = UNetGenerator(channels=channels, stem=True, dropout=(), **parts.generator)
    discriminator = PatchDiscriminator(6, base_channels=width, **parts.discriminator)
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
        "data": trainer.train_data.describe_images(),
        "epochs": "{} of crops of half the height and width, and {} of whole pictures".format(*args.epochs),
        "recipe": "sharp, without dropout, with averaged weights",
        "precision": trainer.precision,
        "seed": args.seed,
        "version": __version__,
        "torch": torch.__version__,
    }
    batch = next(iter(batches(val, NUM_ROWS)))
    columns = {"source": batch["source"], "fake": torch.cat(fakes[:NUM_ROWS]), "target": batch["target"]}
    publish(args.out, generator, TrainingSummary(training, {"eval": scores, "best": "eval"}, columns))
    generator.save_pretrained(args.out, dtype=torch.float16)
    print("\n".join(f"{name:<12} {value:.4g}" for name, value in scores.items()))
    print(f"generator    {args.out}")


def segmenter_scores(fakes: list[Tensor], val: ProceduralFacades, device: torch.device) -> dict[str, float]:
    """Return the IoU that a segmenter trained on drawn pictures has on the outputs `fakes`, and on their targets.

    It sees pictures in half the size, which takes a tenth of the time.
    """
    palette, small = read_palette(None), {"size": val.jitter.size // 2, "weather": val.weather}
    houses = ProceduralFacades(SEGMENTER_HOUSES, seed=SEGMENTER_SEED, **small)
    segmenter = fit(houses, palette, device=device, **SEGMENTER)
    labels = ProceduralFacades(len(val), seed=val.seed, augment=False, **small)
    targets = [batch["target"] for batch in batches(val, 1)]
    ious = [
        score([avg_pool2d(photo, 2) for photo in photos], labels, segmenter, palette)["iou"]
        for photos in (fakes, targets)
    ]
    return dict(zip(("iou", "iou_of_targets"), ious, strict=True))


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
