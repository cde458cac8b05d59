"""Train a segmenter on real photos and labels, and compute FCN-score and distances of generated photos with it.

python examples/train_segmenter.py --data DIR --direction BtoA    # pairs photo | labels in DIR/train and DIR/val
python examples/train_segmenter.py --data DIR --direction BtoA --segmenter SEGMENTER --score GENERATOR PICTURES
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from imtrans import (
    PairedImages,
    ProceduralFacades,
    UNetGenerator,
    fcn_score,
    frechet_distance,
    init_net,
    load_pretrained,
    running_as,
    sliced_wasserstein,
)
from imtrans.checks import at_least
from imtrans.cli.train.flags import given
from imtrans.cli.train.run import main
from imtrans.data.facades.plan import LABELS
from imtrans.data.images import image_files, read_image, to_tensor
from imtrans.data.labels import colours_from_ids, ids_from_colours
from imtrans.data.loader import Batch, batches
from imtrans.errors import DataError, counted
from imtrans.files import write_atomic
from imtrans.hub.saved_model import CONFIG
from imtrans.runtime import pick_device, pick_precision
from imtrans.training.report.image_grid import image_grid_png

TRAINING = "real photos of the training set"
UNKNOWN = "unknown"  # a class that is neither trained nor scored
OUTSIDE = -1  # label outside the photo
NUM_RECTANGLES = 12
NUM_ROWS = 4  # of the saved image
PALETTE = "palette.json"  # in the segmenter's folder
CROP = 0.75  # of the height and width of a photo
Palette = dict[str, list[int]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pairs in train/ and val/ (procedural facades)")
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB", help="BtoA: the labels are B")
    parser.add_argument("--palette", type=Path, help='JSON file {"wall": [0, 0, 255], ...} (CMP facades)')
    parser.add_argument("--segmenter", type=Path, metavar="FOLDER", help="use this saved segmenter, without training")
    parser.add_argument(
        "--score",
        nargs="+",
        default=[],
        metavar="GENERATOR_OR_FOLDER",
        help="saved generators, or folders of their outputs",
    )
    parser.add_argument("--epochs", type=int, help="(60; 4 for procedural facades)")
    parser.add_argument("--size", type=int, help="height and width (256; 64 for procedural facades)")
    parser.add_argument(
        "--base-channels", type=int, default=16, help="width of the U-Net (16; 64 in the paper of 2015)"
    )
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3, help="maximum learning rate (0.002)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/segmenter"))
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    device = pick_device(args.device)
    at_least("train_segmenter", "--batch-size", args.batch_size, 1)
    size = given(args.size, 64 if args.data is None else 256)
    train, val = pairs(args.data, args.direction, size, args.seed)
    if args.segmenter:
        segmenter, palette = load(args.segmenter, device)
    else:
        palette = read_palette(args.palette)
        epochs = given(args.epochs, 4 if args.data is None else 60)
        segmenter = fit(
            train,
            palette,
            epochs=at_least("train_segmenter", "--epochs", epochs, 1),
            base_channels=args.base_channels,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
            device=device,
            precision=args.precision,
        )
        segmenter.save_pretrained(args.out)
        (args.out / PALETTE).write_text(json.dumps(palette))
    print(f"scored on {val}\n{'':<32} pixel  class    IoU      SWD  texture   layout")
    columns = {"labels": next(iter(batches(val, NUM_ROWS)))["source"]}
    for name, photos in scored_photos(args.score, train, val, palette, device):
        photos = [photo.cpu() for photo in photos]
        print(f"{shorten(name):<32} {row(photos, val, segmenter, palette, labelled=name != TRAINING)}", flush=True)
        if name != TRAINING:
            columns[name] = torch.cat(photos[:NUM_ROWS])
            columns[f"found in {name}"] = segment(columns[name], segmenter, palette, device)
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out / "segmented.png", image_grid_png(columns))
    print(f"{' | '.join(columns)}: {args.out / 'segmented.png'}")


def pairs(data: Path | None, direction: str, size: int, seed: int) -> tuple[Dataset[Batch], Dataset[Batch]]:
    if data is None:
        train = ProceduralFacades(200, size=size, seed=2 * seed)
        return train, ProceduralFacades(20, size=size, seed=2 * seed + 1, augment=False)
    # No jitter but flips: resizing blends the colours of label maps.
    train = PairedImages(data / "train", direction=direction, size=size, load_size=size, seed=seed)
    return train, PairedImages(data / "val", direction=direction, size=size, augment=False)


def load(folder: Path, device: torch.device) -> tuple[nn.Module, Palette]:
    return load_pretrained(folder).to(device), read_palette(folder / PALETTE)


def read_palette(path: Path | None) -> Palette:
    if path is None:
        return {name: list(colour) for name, colour in LABELS.items()}
    try:
        return {name: [int(c) for c in colour] for name, colour in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is not a palette: {error}. It must have the colour of each class: {{name: [r, g, b]}}."
        ) from error


def labels_of(batch: Batch, palette: Palette) -> Tensor:
    """Return the class ids of the sources: painted label maps, or other than three channels, one for each class."""
    if batch["source"].shape[1] != 3:
        return batch["source"].argmax(dim=1)
    return ids_from_colours(batch["source"], [tuple(colour) for colour in palette.values()])


def unknown(palette: Palette) -> int | None:
    return list(palette).index(UNKNOWN) if UNKNOWN in palette else None


def fit(
    train: Dataset[Batch],
    palette: Palette,
    *,
    epochs: int,
    base_channels: int = 16,
    batch_size: int = 4,
    lr: float = 2e-3,
    seed: int = 0,
    device: torch.device,
    precision: str = "auto",
) -> UNetGenerator:
    settings = {"base_channels": base_channels, "norm": "batch", "bias": None}
    network = UNetGenerator.preset("unet_2015", 3, len(palette), **settings)
    network = init_net(network, device, scheme="kaiming", seed=seed).train()
    steps = epochs * math.ceil(len(train) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    ignore = unknown(palette)
    draw = torch.Generator().manual_seed(seed)
    half = pick_precision(precision, device) == "bf16"
    bar = tqdm(total=steps, unit="step")
    for epoch in range(epochs):
        for batch in batches(train, batch_size, epoch=epoch, shuffle_seed=seed):
            photos, labels = distort(batch["target"], labels_of(batch, palette), draw)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = network(photos.to(device)).float()
            if ignore is not None:
                labels = labels.masked_fill(labels == ignore, OUTSIDE)
            loss = F.cross_entropy(logits, labels.to(device), ignore_index=OUTSIDE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
        bar.set_postfix(epoch=epoch + 1, loss=f"{loss.item():.3f}")
    bar.close()
    return network.eval()


def distort(photos: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crop, zoom and tint each photo, and crop its labels in the same way, with OUTSIDE beyond the border.

    Random rectangles of each photo get another tint, so that the segmenter relies on structure, not on flat colours.
    """

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(photos), *shape, generator=draw)

    shape = [*photos.shape[:2], *(max(16, int(CROP * side)) for side in photos.shape[-2:])]
    zoom, move = CROP * torch.exp(between(-0.35, 0.35, 1, 1)), between(-0.35, 0.35, 2, 1)
    grid = F.affine_grid(torch.cat([zoom * torch.eye(2), move], dim=2), shape, align_corners=False)
    cut = F.grid_sample(photos, grid, align_corners=False, padding_mode="reflection")
    # grid_sample pads with 0, so it samples id + 1.
    ids = F.grid_sample(labels[:, None].float() + 1, grid, mode="nearest", align_corners=False)[:, 0].round().long() - 1
    contrast, tint = between(0.7, 1.3, 1, 1, 1), between(-0.15, 0.15, 3, 1, 1) + between(-0.2, 0.2, 1, 1, 1)
    middle, half = between(-1, 1, NUM_RECTANGLES, 2), between(0.05, 0.5, NUM_RECTANGLES, 2)
    rows, columns = (torch.linspace(-1, 1, side) for side in shape[2:])
    inside_y = ((rows - middle[..., :1]).abs() < half[..., :1]).float()
    inside_x = ((columns - middle[..., 1:]).abs() < half[..., 1:]).float()
    glass = between(-0.2, 0.2, NUM_RECTANGLES, 3) + between(-0.3, 0.3, NUM_RECTANGLES, 1)
    tint = tint + torch.einsum("b n h, b n w, b n c -> b c h w", inside_y, inside_x, glass)
    return (cut * contrast + tint).clamp(-1, 1), ids


def scored_photos(
    names: list[str], train: Dataset[Batch], val: Dataset[Batch], palette: Palette, device: torch.device
) -> Iterator[tuple[str, Iterator[Tensor]]]:
    """Yield a name and an iterator over photos for each set to score, the real photos first."""
    yield "real photos", (batch["target"] for batch in batches(val, 1))
    # As many as there are in val: sets of other sizes have other distances.
    yield TRAINING, (batch["target"] for batch in islice(batches(train, 1, shuffle_seed=0), len(val)))
    means = mean_colours(train, palette)
    painted = (rearrange(means[labels_of(batch, palette)], "b h w c -> b c h w") for batch in batches(val, 1))
    yield "the mean colour of each class", painted
    for name in names:
        # The folder of a saved generator may also hold images.
        has_outputs = Path(name).is_dir() and not Path(name, CONFIG).is_file()
        yield name, from_folder(name, image_files(Path(name)), val) if has_outputs else generated(name, val, device)


def mean_colours(train: Dataset[Batch], palette: Palette) -> Tensor:
    """Return the mean colour of each class, ``(classes, 3)`` in [-1, 1]."""
    total, count = torch.zeros(len(palette), 3, dtype=torch.float64), torch.zeros(len(palette), dtype=torch.float64)
    for batch in batches(train, 1):
        ids = labels_of(batch, palette).flatten()
        total.index_add_(0, ids, rearrange(batch["target"], "b c h w -> (b h w) c").double())
        count += ids.bincount(minlength=len(palette))
    return (total / count.clamp_min(1)[:, None]).float()


def from_folder(name: str, files: list[Path], val: Dataset[Batch]) -> Iterator[Tensor]:
    if len(files) != len(val):
        raise DataError(
            f"{name} must hold {counted(len(val), 'image')}, one for each validation pair by name, got {len(files)}."
        )
    for file, batch in zip(files, batches(val, 1), strict=True):
        height, width = batch["target"].shape[-2:]
        yield to_tensor(read_image(file).resize((width, height)))[None]


def generated(name: str, val: Dataset[Batch], device: torch.device) -> Iterator[Tensor]:
    generator = load_pretrained(name).to(device)
    return translations(generator, val, device, generator.inference_mode)


@torch.no_grad()
def translations(
    generator: nn.Module, val: Dataset[Batch], device: torch.device, mode: str, batch_size: int = 1
) -> Iterator[Tensor]:
    torch.manual_seed(0)  # for dropout, in the mode "paper"
    with running_as(generator, mode):
        for batch in batches(val, batch_size):
            yield generator(batch["source"].to(device))


def score(photos: Iterable[Tensor], val: Dataset[Batch], segmenter: nn.Module, palette: Palette) -> dict[str, float]:
    labels = (labels_of(batch, palette) for batch in batches(val, 1))
    return fcn_score(photos, labels, segmenter, ignore=unknown(palette))


def distances(photos: list[Tensor], val: Dataset[Batch], segmenter: nn.Module) -> dict[str, float]:
    patches, features = (
        compare(photos, (batch["target"] for batch in batches(val, 1)))
        for compare in (sliced_wasserstein, partial(frechet_distance, network=segmenter))
    )
    return {"swd": patches["swd"], **features}


def row(photos: list[Tensor], val: Dataset[Batch], segmenter: nn.Module, palette: Palette, *, labelled: bool) -> str:
    scores = format_scores(score(photos, val, segmenter, palette)) if labelled else f"{'-':>5}  {'-':>5}  {'-':>5}"
    return f"{scores}  " + "  ".join(f"{value:7.2f}" for value in distances(photos, val, segmenter).values())


@torch.no_grad()
def segment(photos: Tensor, segmenter: nn.Module, palette: Palette, device: torch.device) -> Tensor:
    """Return the predicted classes of photos, in the colours of the palette."""
    with running_as(segmenter, "eval"):
        ids = segmenter(photos.to(device)).argmax(dim=1)
    return colours_from_ids(ids, [tuple(colour) for colour in palette.values()]).cpu()


def shorten(name: str) -> str:
    return name if len(name) <= 32 else f"...{name[-29:]}"


def format_scores(scores: dict[str, float]) -> str:
    return f"{scores['pixel_accuracy']:5.3f}  {scores['class_accuracy']:5.3f}  {scores['iou']:5.3f}"


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    raise SystemExit(main(run, arguments()))
