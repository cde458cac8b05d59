"""Train pix2pix from label maps to photos of Cityscapes, or of procedural streets, and compute the FCN-score.

python examples/cityscapes.py                           # procedural streets, a few minutes on a laptop
python examples/cityscapes.py --data DIR                # DIR/leftImg8bit and DIR/gtFine, as Cityscapes is unpacked

The segmenter of the FCN-score is trained on the same photos, after the generator, and saved in the run folder.
"""

import argparse
import json
from pathlib import Path

import torch
from train_segmenter import PALETTE, Palette, fit, format_scores, load, score, translations

from imtrans import CityscapesImages, Pix2Pix, load_pretrained
from imtrans.cli.train.flags import (
    PROCEDURAL,
    REAL,
    add_data_flags,
    add_flags,
    add_network_flags,
    data_arguments,
    make_parser,
    set_defaults,
)
from imtrans.cli.train.networks import paired_method
from imtrans.cli.train.run import main, train_method
from imtrans.data.cityscapes import TRAIN_PALETTE
from imtrans.data.loader import batches
from imtrans.data.streets import save_streets
from imtrans.distributed.process_group import init_process_group
from imtrans.runtime import pick_device

STREETS = {**PROCEDURAL, "size": (128, 256), "base_channels": 24, "epochs": 6, "segmenter_epochs": 4}
PHOTOS = {**REAL, "size": (256, 512), "segmenter_epochs": 60}


def arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, help="folder with leftImg8bit/ and gtFine/, each with train/ and val/")
    add_data_flags(data, procedural_size=128)
    add_network_flags(parser, Pix2Pix, norm="batch", dropout=True, procedural_width=STREETS["base_channels"])
    add_flags(parser, out="runs/cityscapes", procedural=STREETS)
    parser.add_argument("--segmenter-epochs", type=int, help="of the segmenter (60; 4 for procedural streets)")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    group = init_process_group(pick_device(args.device))
    set_defaults(args, **(STREETS if args.data is None else PHOTOS))
    if args.data is None:
        set_defaults(args, load_size=args.size)  # no jitter but flips
    folder = args.data or group.run_on_rank0(lambda: streets(Path("data", f"streets-{args.seed}"), args.seed))
    settings = data_arguments(args)
    train = CityscapesImages(folder, seed=args.seed, **settings)
    val = CityscapesImages(folder, "val", augment=False, **settings)
    trainer = train_method(args, paired_method(args, (len(TRAIN_PALETTE), 3)), train, val, group)
    if group.is_rank0:
        segmenter, palette = segmenter_of(args, train, trainer.device)
        generator = load_pretrained(args.out / "generator").to(trainer.device)
        outputs = translations(generator, val, trainer.device, generator.inference_mode)
        print("\nFCN-score     pixel  class    IoU")
        for name, photos in {"real photos": (batch["target"] for batch in batches(val, 1)), "output": outputs}.items():
            print(f"{name:<12}  {format_scores(score(photos, val, segmenter, palette))}")


def streets(folder: Path, seed: int) -> Path:
    """Draw streets into `folder` unless it exists."""
    if not folder.is_dir():
        print(f"drawing streets into {folder}")
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        save_streets(unfinished, 240, split="train", seed=2 * seed)
        save_streets(unfinished, 20, split="val", seed=2 * seed + 1)
        unfinished.rename(folder)
    return folder


def segmenter_of(
    args: argparse.Namespace, train: CityscapesImages, device: torch.device
) -> tuple[torch.nn.Module, Palette]:
    """Load the segmenter in the run folder, or train one on real photos and save it there."""
    folder = args.out / "segmenter"
    if not folder.is_dir():
        palette = {name: list(colour) for name, colour in TRAIN_PALETTE.items()}
        segmenter = fit(train, palette, epochs=args.segmenter_epochs, seed=args.seed, device=device)
        segmenter.save_pretrained(folder)
        (folder / PALETTE).write_text(json.dumps(palette))
    return load(folder, device)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
