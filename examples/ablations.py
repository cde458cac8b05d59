"""Ablations of the pix2pix paper: train each combination with one seed, and print a table of scores.

python examples/ablations.py                                        # all, on procedural facades
python examples/ablations.py --data DIR --direction BtoA --runs l1 l1+cgan --segmenter runs/segmenter
python examples/ablations.py --data DIR --direction BtoA --resume                       # continue after an interruption
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset
from train_segmenter import fit, format_scores, load, pairs, read_palette, score, translations

from imtrans import (
    PairedImages,
    PatchDiscriminator,
    Pix2Pix,
    PixelDiscriminator,
    Trainer,
    UNetGenerator,
    evaluate,
    init_net,
)
from imtrans.checks import at_least
from imtrans.cli.train.flags import given
from imtrans.cli.train.run import main
from imtrans.data.loader import Batch, batches
from imtrans.errors import ArgumentError, DataError, ShapeError, join_names
from imtrans.methods.recipes import unet_depth
from imtrans.runtime import pick_device
from imtrans.training.report.image_grid import image_grid


@dataclass(frozen=True)
class Combination:
    """A combination of loss terms, discriminator input, skips and receptive field."""

    title: str
    l1: bool = True
    gan: bool = True
    conditional: bool = True
    skips: str = "concat"
    receptive_field: int = 70

    def method(self, depth: int, base_channels: int, device: torch.device, seed: int) -> Pix2Pix:
        generator = UNetGenerator(base_channels=base_channels, depth=depth, skips=self.skips)
        return Pix2Pix(
            init_net(generator, device, seed=seed),
            init_net(self.discriminator(base_channels), device, seed=seed + 1) if self.gan else None,
            l1_weight=100.0 if self.l1 else 0.0,
            conditional=self.conditional,
        )

    def discriminator(self, base_channels: int) -> nn.Module:
        channels = 6 if self.conditional else 3
        if self.receptive_field == 1:
            return PixelDiscriminator(channels, base_channels=base_channels)
        return PatchDiscriminator.for_receptive_field(self.receptive_field, channels, base_channels=base_channels)

    def takes(self, size: int) -> bool:
        """Whether the discriminator takes square images of `size`."""
        with torch.device("meta"):
            try:
                self.discriminator(1)(torch.empty(1, 6 if self.conditional else 3, size, size))
            except ShapeError:
                return False
        return True


RUNS = {
    # table 1: loss terms
    "l1": Combination("L1", gan=False),
    "gan": Combination("GAN", l1=False, conditional=False),
    "cgan": Combination("cGAN", l1=False),
    "l1+gan": Combination("L1 + GAN", conditional=False),
    "l1+cgan": Combination("L1 + cGAN (U-Net, 70x70)"),
    # table 2: the generator without skips
    "encoder-decoder-l1": Combination("encoder-decoder, L1", gan=False, skips="none"),
    "encoder-decoder": Combination("encoder-decoder, L1 + cGAN", skips="none"),
    # table 3: receptive field of the discriminator; 70 is l1+cgan
    "1x1": Combination("L1 + cGAN, 1x1", receptive_field=1),
    "16x16": Combination("L1 + cGAN, 16x16", receptive_field=16),
    "286x286": Combination("L1 + cGAN, 286x286", receptive_field=286),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pairs in train/ and val/ (procedural facades)")
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="BtoA: B is the source")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--epochs", type=int, help="epochs of each run (200; 5 for procedural facades)")
    parser.add_argument("--max-steps", type=int, help="stop each run after this many steps")
    parser.add_argument("--size", type=int, help="height and width (256; 128 for procedural facades)")
    parser.add_argument("--base-channels", type=int, help="width of the networks (64; 16 for procedural facades)")
    parser.add_argument("--segmenter", type=Path, help="saved by train_segmenter.py (a new one is trained)")
    parser.add_argument(
        "--segmenter-epochs", type=int, help="epochs of the new segmenter (60; 4 for procedural facades)"
    )
    parser.add_argument("--palette", type=Path, help='JSON file {"wall": [0, 0, 255], ...} (CMP facades)')
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue the runs in --out, and start the others")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    args = parser.parse_args()
    args.runs = list(dict.fromkeys(args.runs))
    return args


def run(args: argparse.Namespace) -> None:
    # Checked first: earlier runs may take hours.
    if not args.resume and (existing := [name for name in args.runs if (args.out / name).exists()]):
        raise DataError(
            f"{args.out} already has runs of {join_names(existing)}. Continue with --resume, or give another --out."
        )
    real = args.data is not None
    size = given(args.size, 256 if real else 128)
    device = pick_device(args.device)
    train, val = pairs(args.data, args.direction, size, args.seed)
    if too_large := [name for name in args.runs if RUNS[name].gan and not RUNS[name].takes(size)]:
        raise ArgumentError(
            f"ablations: images of {size}x{size} are too small for the discriminators of {join_names(too_large)}. Use "
            "a larger --size, or choose other --runs."
        )
    if args.segmenter:
        segmenter, palette = load(args.segmenter, device)
    else:
        palette = read_palette(args.palette)
        epochs = at_least("ablations", "--segmenter-epochs", given(args.segmenter_epochs, 60 if real else 4), 1)
        segmenter = fit(train, palette, epochs=epochs, seed=args.seed, device=device)
    scores = {"real photos": score((b["target"] for b in batches(val, 1)), val, segmenter, palette)}
    # The generators train with the paper's jitter, which blends label colours; the segmenter trains without.
    jittered = PairedImages(args.data / "train", direction=args.direction, size=size, seed=args.seed) if real else train
    samples = next(iter(batches(val, 4)))
    columns = {"source": samples["source"]}
    for name in args.runs:
        generator = train_generator(RUNS[name], jittered, size, args, args.out / name)
        scores[name] = {
            **evaluate(generator, val, metrics=("l1", "psnr", "ssim"), mode="paper", seed=args.seed),
            **score(translations(generator, val, device, "paper"), val, segmenter, palette),
        }
        columns[name] = next(iter(translations(generator, val, device, "paper", batch_size=4))).cpu()
    image_grid({**columns, "target": samples["target"]}).save(args.out / "ablations.png")
    (args.out / "ablations.json").write_text(json.dumps(scores, indent=2))
    print(f"\n{table(scores)}\n\nsource | {' | '.join(args.runs)} | target: {args.out / 'ablations.png'}")


def train_generator(
    combination: Combination, train: Dataset[Batch], size: int, args: argparse.Namespace, out: Path
) -> nn.Module:
    real = args.data is not None
    base_channels = given(args.base_channels, 64 if real else 16)
    method = combination.method(unet_depth(size), base_channels, pick_device(args.device), args.seed)
    print(f"\n{combination.title}")
    Trainer(
        method,
        train,
        out=out,
        epochs=given(args.epochs, 200 if real else 5),
        max_steps=args.max_steps,
        precision=args.precision,
        device=args.device,
        seed=args.seed,
        config={"combination": asdict(combination)},
    ).fit(resume=args.resume and out.is_dir())
    return method.generator


def table(scores: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':<28}    L1   PSNR   SSIM  pixel  class    IoU"]
    for name, row in scores.items():
        title = RUNS[name].title if name in RUNS else name
        own = f"{row['l1']:6.3f} {row['psnr']:6.2f} {row['ssim']:6.3f}" if "l1" in row else " " * 20
        lines.append(f"{title:<28} {own}  {format_scores(row)}")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
