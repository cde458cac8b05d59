"""Shared by the training examples: flags, arguments of the trainer, and the printed report."""

import argparse
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from imtrans import (
    DerivedPairs,
    PairedImages,
    PatchDiscriminator,
    Pix2Pix,
    PixelDiscriminator,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    init_net,
    load_pretrained,
)
from imtrans.convert.published import is_published
from imtrans.data.crop_dataset import Size
from imtrans.data.paired import DIRECTIONS
from imtrans.data.procedural import ProceduralPairs
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import (
    ArgumentError,
    DataError,
    HubError,
    ImtransError,
    SavedModelError,
    counted,
    join_names,
    one_line,
)
from imtrans.hub.pretrained import Pretrained
from imtrans.methods import Method
from imtrans.methods.recipes import RECIPES, Settings, unet_depth
from imtrans.nn.init import SCHEMES
from imtrans.nn.layers import NORMS
from imtrans.nn.losses import GAN_MODES, PIXEL_LOSSES
from imtrans.nn.unet import NOISE_AT
from imtrans.runtime import pick_device
from imtrans.training.schedule import LR_POLICIES

T = TypeVar("T")

GENERATORS = ("unet_256", "unet_128", "resnet_9blocks", "resnet_6blocks")
VALIDATION = ("val", "validation", "test")
METHOD_FLAGS = {
    "l1_weight": "weight of the pixel loss",
    "d_loss_weight": "factor of the discriminator's loss",
    "source_cycle_weight": "weight of the cycle loss from source to target and back",
    "target_cycle_weight": "weight of the cycle loss from target to source and back",
    "identity_weight": "weight of the identity losses, relative to the cycle weights",
    "feature_weight": "weight of the feature matching loss, unless the recipe sets it",
    "diversity_weight": "weight of the diversity loss, for --noise-channels",
    "pool_size": "number of earlier images shown to the discriminator",
}


class SizeAction(argparse.Action):
    """Stores one number as it is, and two as ``(height, width)``."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if len(values) > 2:
            parser.error(f"argument {self.option_strings[0]}: give one number, or height and width")
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


def add_data_flags(parser: argparse.ArgumentParser, *, procedural_size: int) -> None:
    size: dict[str, Any] = {"type": int, "nargs": "+", "action": SizeAction, "metavar": ("HEIGHT", "WIDTH")}
    parser.add_argument(
        "--size", **size, help=f"one number for squares (256; {procedural_size} for procedural images, only squares)"
    )
    parser.add_argument(
        "--load-size", **size, help="that crops of --size are taken from (286 / 256 of it); not for procedural images"
    )
    parser.add_argument("--no-flip", action="store_true", help="do not mirror images; not for procedural images")
    parser.add_argument(
        "--on-bad-image", choices=["error", "skip"], default="error", help="skip: leave out images that cannot be read"
    )


def data_arguments(args: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Return the arguments of a data set of files that the flags set."""
    return {"size": size, "load_size": args.load_size, "flip": not args.no_flip, "on_bad_image": args.on_bad_image}


def check_procedural(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the script if a flag has no meaning for procedural images."""
    given_flags = {"--size HEIGHT WIDTH": isinstance(args.size, tuple), "--load-size": args.load_size is not None}
    for flag, is_given in {**given_flags, "--no-flip": args.no_flip}.items():
        if is_given:
            parser.error(f"{flag} is for the images of a folder, and there is no --data")


def parse_flags(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and end the script if a flag is for a folder and there is no --data."""
    args = parser.parse_args()
    if args.data is None:
        check_procedural(parser, args)
    if hasattr(args, "splits"):
        check_rows_flags(parser, args)
    return args


def data_source(text: str) -> Path | str:
    """Return the folder, or the text itself if it begins with hf:."""
    return text if text.startswith("hf:") else Path(text)


def add_pair_flags(parser: argparse.ArgumentParser, source: Any = None) -> None:
    """Add --data, to the group `source` if there is one, and the flags of its rows."""
    text = "folder with train/ and, for validation, val/ or test/; or hf:USER/NAME, a data set on the Hub"
    (source or parser).add_argument("--data", type=data_source, help=text)
    parser.add_argument(
        "--splits", nargs="+", metavar=("TRAIN", "VAL"), help="of hf: (train and, if there is one, val... or test)"
    )
    parser.add_argument("--columns", nargs=2, metavar=("A", "B"), help="pictures of a row of hf: (imageA imageB)")


def check_rows_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the script if a flag for rows is given without --data hf:, or in a wrong form."""
    for flag in ("splits", "columns"):
        if getattr(args, flag) is not None and not isinstance(args.data, str):
            parser.error(f"--{flag} is for the rows of --data hf:USER/NAME")
    if len(args.splits or ()) > 2:
        parser.error("argument --splits: give one name, for training, or two, for training and validation")


def pair_parser(description: str | None, *, out: str, direction: str) -> argparse.ArgumentParser:
    """Return the parser of an example that trains Pix2Pix on pairs; `direction` says what ``AtoB`` is."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pair_flags(parser)
    parser.add_argument("--direction", choices=DIRECTIONS, default="AtoB", help=f"AtoB: {direction} (AtoB)")
    parser.add_argument("--epochs", type=int, help="total (200; 5 for procedural images)")
    add_data_flags(parser, procedural_size=128)
    parser.add_argument("--base-channels", type=int, help="width of the networks (64; 32 for procedural images)")
    parser.add_argument("--out", type=Path, default=Path(out))
    add_flags(parser)
    add_network_flags(parser, Pix2Pix, norm="batch", dropout=True)
    return parser


def pairs_of(args: argparse.Namespace, procedural: type[ProceduralPairs], **settings: Any) -> tuple[Any, Any]:
    """Return pairs for training and validation, from --data with these `settings`, or `procedural` ones."""
    if args.data is None:
        set_defaults(args, size=128, base_channels=32, epochs=5)
        return drawn(args, procedural, direction=args.direction)
    set_defaults(args, size=256, base_channels=64, epochs=200)
    settings = {**data_arguments(args, args.size), **settings}
    if isinstance(args.data, str):
        return pairs_of_rows(args, **settings)
    return pairs_of_folder(args.data, seed=args.seed, direction=args.direction, **settings)


def drawn(args: argparse.Namespace, procedural: Callable[..., T], **settings: Any) -> tuple[T, T]:
    """Return 400 `procedural` samples for training and 20 others for validation."""
    make = partial(procedural, size=args.size, **settings)
    return make(400, seed=2 * args.seed), make(20, seed=2 * args.seed + 1, augment=False)


def pairs_of_folder(folder: Path, *, seed: int, **settings: Any) -> tuple[PairedImages, PairedImages | None]:
    """Return the pairs in train/, and the ones in val/ or test/."""
    if folder.is_dir() and not (folder / "train").is_dir():
        raise DataError(f"{folder} has no folder train/. Put the training pairs there, and validation pairs in val/.")
    val = held_out(folder)
    train = PairedImages(folder / "train", seed=seed, **settings)
    return train, None if val is None else PairedImages(val, augment=False, **settings)


def pairs_of_rows(args: argparse.Namespace, **settings: Any) -> tuple[PairedImages, PairedImages | None]:
    """Return the pairs in the rows of --data hf:, for training and, if there is such a split, for validation."""
    splits = load_splits(args.data)
    a, b = args.columns or ("imageA", "imageB")
    columns = (a, b) if args.direction == "AtoB" else (b, a)

    def pairs(split: str, **more: Any) -> PairedImages:
        return PairedImages.from_rows(splits[split], *columns, name=f"{args.data}, {split}", **settings, **more)

    train, val = choose_splits(args.data, splits, args.splits)
    return pairs(train, seed=args.seed), None if val is None else pairs(val, augment=False)


def load_splits(data: str) -> Mapping[str, Any]:
    """Load the rows of ``hf:NAME`` by split. NAME is a data set on the Hub, or a folder that load_dataset takes."""
    if find_spec("datasets") is None:
        raise ArgumentError(
            f'--data {data} needs datasets, which is not installed. Install it with: pip install "imtrans[datasets]".'
        )
    from datasets import load_dataset  # optional, and slow to import

    try:
        return cast(Mapping[str, Any], load_dataset(data.removeprefix("hf:")))
    except Exception as error:  # it raises errors of many libraries
        raise DataError(
            f"--data {data} cannot be loaded by the datasets library: {one_line(str(error)).rstrip('.')}. Check the "
            "name and the network."
        ) from error


def choose_splits(data: str, splits: Mapping[str, Any], asked: list[str] | None) -> tuple[str, str | None]:
    """Return the names of the splits for training and validation; `asked` is --splits."""
    train, *others = asked or ["train"]
    held_out = others or ([] if asked else [name for name in VALIDATION if name in splits][:1])
    if missing := [name for name in (train, *held_out) if name not in splits]:
        raise DataError(
            f"--data {data} has no split {missing[0]!r}, but {join_names([repr(name) for name in splits])}. Name the "
            "ones for training and, if there is one, for validation: --splits TRAIN VAL."
        )
    return train, held_out[0] if held_out else None


def add_flags(parser: argparse.ArgumentParser, *, paired: bool = True) -> None:
    parser.add_argument("--decay-epochs", type=int, help="last epochs, with a decaying learning rate (half of them)")
    parser.add_argument("--lr-policy", choices=LR_POLICIES, default="linear", help="see imtrans.Trainer (linear)")
    parser.add_argument("--warmup-epochs", type=int, default=0, help="first epochs, with a growing learning rate (0)")
    parser.add_argument("--max-steps", type=int, help="stop after this many steps")
    parser.add_argument("--lr", type=float, help="learning rate of Adam (0.0002)")
    parser.add_argument(
        "--betas", type=float, nargs=2, metavar=("BETA1", "BETA2"), help="decay rates of Adam's moments (0.5 0.999)"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="samples in each process (1)")
    parser.set_defaults(segmenter=None)
    if paired:  # without pairs there is no validation
        text = "of targets, a folder or USER/REPO: the validation adds texture and layout"
        parser.add_argument("--segmenter", metavar="NAME", help=text)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--no-compile", action="store_true", help="do not capture the step as a CUDA graph")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--num-workers", type=int, default=0, help="loader processes for data that do not fit in memory (0)"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="N",
        help="steps between checkpoints (a twentieth of the run, at least 100)",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    parser.add_argument("--push-to-hub", metavar="USER/REPO", help="push the trained networks at the end")


def add_network_flags(parser: argparse.ArgumentParser, method: type, *, norm: str, dropout: bool) -> None:
    """Add the flags of the networks and of the class `method`; a weight only if the class has it as an argument.

    `norm` is the default of --norm. `dropout` says whether the generators have dropout by default.
    """
    parser.set_defaults(method=method, recipe="paper")
    if len(names := [name for name, methods in RECIPES.items() if method in methods]) > 1:
        parser.add_argument("--recipe", choices=names, default="sharp", help="see imtrans.recipe (sharp)")
    parser.add_argument("--generator", choices=GENERATORS, help="generator of pytorch-CycleGAN-and-pix2pix")
    parser.add_argument("--norm", choices=sorted(NORMS), default=norm, help=f"norm of all networks ({norm})")
    parser.add_argument(
        "--discriminator", choices=["patch", "pixel"], default="patch", help="pixel: judges each pixel alone (patch)"
    )
    parser.add_argument("--n-layers", type=int, help="convolutions of stride 2 in a patch discriminator (3)")
    if dropout:
        parser.add_argument("--no-dropout", action="store_true", help="no dropout in the generator")
    parser.set_defaults(no_dropout=not dropout, noise_channels=0, noise_at="input")
    if "diversity_weight" in _parameters(method):
        parser.add_argument("--noise-channels", type=int, help="length of the generator's noise, for a U-Net (0)")
        parser.add_argument("--noise-at", choices=NOISE_AT, help="where the noise enters the U-Net (input)")
    parser.add_argument(
        "--init", choices=SCHEMES, default="normal", help="distribution of the initial weights (normal)"
    )
    parser.add_argument("--init-gain", type=float, help="standard deviation or gain of the initial weights (0.02)")
    names = "weights to start from: a folder, USER/REPO, or a name in imtrans.published_weights()"
    parser.add_argument("--warm-start", metavar="NAME", help=names)
    parser.add_argument("--gan-mode", choices=GAN_MODES, help=f"adversarial loss ({_default(method, 'gan_loss')})")
    if "pixel_loss" in _parameters(method):
        parser.add_argument(
            "--pixel-loss", choices=PIXEL_LOSSES, help=f"loss of pixels ({_default(method, 'pixel_loss')})"
        )
    for name in _method_flags(method):
        flag, default = f"--{name.replace('_', '-')}", _default(method, name)
        parser.add_argument(flag, type=type(default), help=f"{METHOD_FLAGS[name]} ({default:g})")


def _method_flags(method: type) -> list[str]:
    return [name for name in METHOD_FLAGS if name in _parameters(method)]


def _default(function: Callable[..., Any], argument: str) -> Any:
    return _parameters(function)[argument].default


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, or of a class and its bases, which may take `**options` for them."""
    functions = [base.__init__ for base in reversed(function.__mro__)] if isinstance(function, type) else [function]
    return {name: each for made in functions for name, each in inspect.signature(made).parameters.items()}


def method_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the method that the flags set."""
    if args.gan_mode == "wgangp" and args.norm == "batch":
        raise ArgumentError(
            "--gan-mode wgangp cannot train a discriminator with batch norm: its gradient penalty is for each "
            "sample alone. Add --norm instance, group or none."
        )
    flags = chosen(gan_loss=args.gan_mode, pixel_loss=getattr(args, "pixel_loss", None))
    flags |= chosen(**{name: getattr(args, name, None) for name in METHOD_FLAGS})
    return {**settings_of(args).method, **flags}


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings of --recipe."""
    return RECIPES[args.recipe][args.method]


def make_generator(
    args: argparse.Namespace,
    default: type[Pretrained],
    arguments: dict[str, Any],
    channels: tuple[int, int] = (3, 3),
    *,
    base_channels: int,
    seed: int,
) -> Pretrained:
    """Make the generator of --generator, or a `default` with its `arguments`, with initial weights."""
    settings: dict[str, Any] = {"base_channels": base_channels, "norm": args.norm, **settings_of(args).generator}
    if args.generator is None:
        cls, make = default, partial(default, **arguments)
    else:
        cls = ResnetGenerator if args.generator.startswith("resnet") else UNetGenerator
        make = partial(cls.preset, f"junyanz/{args.generator}")
    if args.noise_channels or args.noise_at != "input":
        if cls is not UNetGenerator:
            raise ArgumentError(f"--noise-channels is for U-Nets, and --generator is {args.generator}. Leave it out.")
        settings |= {"noise_channels": args.noise_channels, "noise_at": args.noise_at}
    if cls is UNetGenerator and args.no_dropout:
        settings["dropout"] = ()
    if cls is ResnetGenerator and not args.no_dropout:
        settings["dropout"] = 0.5  # as in their pix2pix
    return _init(args, make(*channels, **settings), seed)


def make_discriminator(args: argparse.Namespace, in_channels: int, *, base_channels: int, seed: int) -> Pretrained:
    """Make the discriminator of --discriminator with initial weights."""
    settings: dict[str, Any] = {"base_channels": base_channels, "norm": args.norm, **chosen(n_layers=args.n_layers)}
    settings |= settings_of(args).discriminator
    if args.discriminator == "patch":
        return _init(args, PatchDiscriminator(in_channels, **settings), seed)
    if args.n_layers is not None:
        raise ArgumentError("--n-layers has no effect with --discriminator pixel, which has no strides. Leave it out.")
    return _init(args, PixelDiscriminator(in_channels, **settings), seed)


def _init(args: argparse.Namespace, network: Pretrained, seed: int) -> Pretrained:
    return init_net(network, args.device, seed=seed, **_init_arguments(args))


def _init_arguments(args: argparse.Namespace) -> dict[str, Any]:
    if args.init != "kaiming":
        return {"scheme": args.init, "gain": given(args.init_gain, _default(init_net, "gain"))}
    if args.init_gain is not None:
        raise ArgumentError("--init-gain has no effect with --init kaiming, whose gain fits ReLU. Leave it out.")
    return {"scheme": args.init}


def warm_start(args: argparse.Namespace, method: nn.Module, group: ProcessGroup) -> None:
    """Copy the weights of --warm-start into the networks of `method`, before the trainer sends them to all processes.

    Each generator must be there, in the same sizes. A discriminator that is not there, or of another size, keeps its
    initial weights. With --resume nothing is copied: the checkpoint holds the weights.
    """
    if args.warm_start is not None and not args.resume:
        lines = group.run_on_rank0(lambda: _copy_all(args.warm_start, method))
        if group.is_rank0:
            print("\n".join(lines))


def _copy_all(name: str, method: nn.Module) -> list[str]:
    generators = {each.network: each.name for each in cast(Method, method).translations()}
    lines = []
    for part, network in method.named_children():
        if not isinstance(network, Pretrained):
            continue
        folder = generators.get(network, part)
        nested, required = Path(name, folder).is_dir(), network in generators
        root = required and len(generators) == 1 and not nested  # the only generator may be at the root
        if not required and not nested and (Path(name).is_dir() or is_published(name)):
            note = f"initial weights, because {name} has no folder {folder}"
        else:
            try:
                found = load_pretrained(name, subfolder=None if root else folder)
                note = _copy(name if root else f"{name}/{folder}", found, network)
            except (HubError, SizeError) as error:
                if required:
                    raise
                note = f"initial weights, because {error}"
        lines.append(f"{part}: {note}")
    return lines


class SizeError(SavedModelError):
    """Saved weights have other sizes than the network."""


def _copy(name: str, saved: Pretrained, network: Pretrained) -> str:
    """Copy the weights of `saved` to `network`. Returns what to print; raises a SizeError."""
    if type(saved) is type(network):
        pairs = {argument: (saved.config[argument], value) for argument, value in network.config.items()}
        differ = [f"{argument}={a!r} instead of {b!r}" for argument, (a, b) in pairs.items() if a != b]
    else:
        differ = [f"{type(saved).__name__} instead of {type(network).__name__}"]
    theirs, ours = saved.state_dict(), network.state_dict()
    shapes = {key: (tuple(theirs[key].shape), tuple(ours[key].shape)) for key in ours if key in theirs}
    wrong = [f"{key} is {a} instead of {b}" for key, (a, b) in shapes.items() if a != b]
    if alone := len(theirs.keys() ^ ours.keys()):
        wrong = [f"{counted(alone, 'tensor')} in only one of the two", *wrong]
    if wrong:
        raise SizeError(
            f"--warm-start: {name} has other sizes than the network of this run. Arguments: {join_names(differ)}. "
            f"Tensors: {join_names(wrong, 3)}. Use the --recipe, --generator, --norm, --size and "
            "--base-channels of its training."
        )
    network.load_state_dict(theirs)
    return f"weights of {name}" + (f", which has {join_names(differ)}" if differ else "")


def trainer_arguments(args: argparse.Namespace, *, size: Size) -> dict[str, Any]:
    """Return the arguments of `imtrans.Trainer` that the flags set."""
    return {
        "out": args.out,
        **settings_of(args).trainer,
        **chosen(lr=args.lr, betas=args.betas and tuple(args.betas)),
        "decay_epochs": args.decay_epochs,
        "lr_policy": args.lr_policy,
        "warmup_epochs": args.warmup_epochs,
        "max_steps": args.max_steps,
        "batch_size": args.batch_size,
        "precision": args.precision,
        "segmenter": args.segmenter and load_pretrained(args.segmenter).to(pick_device(args.device)),
        "compile": False if args.no_compile else "auto",
        "device": args.device,
        "seed": args.seed,
        "num_workers": args.num_workers,
        "checkpoint_every": args.checkpoint_every,
        "config": {
            "recipe": args.recipe,
            "size": size,
            "init": _init_arguments(args),
            **chosen(warm_start=args.warm_start),
            "command": shlex.join(sys.argv),
        },
    }


def train_paired(
    args: argparse.Namespace, train: Any, val: Any, group: ProcessGroup, *, channels: tuple[int, int] = (3, 3)
) -> Trainer:
    """Make the networks of the class `args.method` for paired data, train them, and print a report.

    `args` has a size, a number of base channels and of epochs; `channels` are the ones of source and target.
    """
    say = print if group.is_rank0 else lambda text: None
    say(f"training on   {train}\nvalidating on {val or 'nothing: there is no train/ with val/ or test/ beside it'}")
    unet, seed = {"depth": unet_depth(args.size)}, args.seed
    generator = make_generator(args, UNetGenerator, unet, channels, base_channels=args.base_channels, seed=seed)
    discriminator = make_discriminator(args, sum(channels), base_channels=args.base_channels, seed=seed + 1)
    method = args.method(generator, discriminator, **method_arguments(args))
    warm_start(args, method, group)
    trainer = Trainer(method, train, val_data=val, epochs=args.epochs, **trainer_arguments(args, size=args.size))
    say(plan(trainer, args.batch_size, group))
    say(report(trainer.fit(resume=args.resume), args.out))
    if args.push_to_hub:
        say(f"pushed to  {trainer.push_to_hub(args.push_to_hub)}")
    return trainer


def set_defaults(args: argparse.Namespace, **values: Any) -> None:
    """Give the flags that are not set these values."""
    for name, value in values.items():
        setattr(args, name, given(getattr(args, name), value))


def photo_parser(description: str | None, method: type, *, out: str, **procedural: Any) -> argparse.ArgumentParser:
    """Return the parser of an example whose sources are made from photos, with all flags that these share.

    `procedural` has defaults of flags for procedural facades.
    """
    procedural = {"size": 128, "base_channels": 32, "epochs": 5, **procedural}
    widths = f"64; {procedural['base_channels']} for procedural facades"
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photos, or with train/ and, for validation, val/ or test/")
    parser.add_argument("--epochs", type=int, help="total (200; 5 for procedural facades)")
    add_data_flags(parser, procedural_size=128)
    parser.add_argument("--base-channels", type=int, help=f"width of the networks ({widths})")
    parser.add_argument("--out", type=Path, default=Path(out))
    add_flags(parser)
    add_network_flags(parser, method, norm="batch", dropout=True)
    parser.set_defaults(procedural=procedural)
    return parser


def photo_pairs(args: argparse.Namespace, source: Any) -> tuple[DerivedPairs, DerivedPairs | None]:
    """Make pairs for training and validation from the photos of --data, or of procedural facades.

    `source` is as for `imtrans.DerivedPairs`. Flags that are not set get their defaults.
    """
    if args.data is None:
        set_defaults(args, **args.procedural)
        train, val = drawn(args, ProceduralFacades)
        return DerivedPairs(train, source), DerivedPairs(val, source)
    set_defaults(args, size=256, base_channels=64, epochs=200)
    settings = {"seed": args.seed, **data_arguments(args, args.size)}
    if not (args.data / "train").is_dir():
        return DerivedPairs(args.data, source, **settings), None
    folder = held_out(args.data)
    pairs = DerivedPairs(args.data / "train", source, **settings)
    return pairs, None if folder is None else DerivedPairs(folder, source, augment=False, **settings)


def plan(trainer: Trainer, batch_size: int, group: ProcessGroup) -> str:
    batch = f"batch {batch_size}" + (f" in each of {group.world_size} processes" if group.world_size > 1 else "")
    return f"{counted(trainer.total_steps, 'step')} of {batch} on {trainer.device} in {trainer.precision}"


def held_out(folder: Path) -> Path | None:
    """Return the folder of validation data in `folder`: val/ or test/."""
    return next((folder / name for name in ("val", "test") if (folder / name).is_dir()), None)


def chosen(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def given(value: T | None, default: T) -> T:
    return default if value is None else value


def report(validation: dict | None, out: Path) -> str:
    distances = [name for name in ("texture", "layout") if validation and name in validation["eval"]]
    columns = "".join(f"{name:>10}" for name in distances)
    lines = (
        ["", "validation, images in [0, 1]:", f"    mode           L1    PSNR     SWD{columns}"] if validation else []
    )
    for mode in ("eval", "batch_stats", "paper") if validation else ():
        best = "  <- saved with the generator" if mode == validation["best"] else ""
        scores = validation[mode]
        # Images below 16 pixels have none.
        swd = f"{scores['swd']:7.2f}" if "swd" in scores else f"{'-':>7}"
        own = "".join(f"{scores[name]:10.3g}" for name in distances)
        lines.append(f"    {mode:<11} {scores['l1']:.3f}   {scores['psnr']:5.2f} {swd}{own}{best}")
    gallery = (out / "index.html").resolve().as_uri()
    return "\n".join([*lines, "", f"generator  {out / 'generator'}", f"gallery    {gallery}"])


def main(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run an example, print an error of imtrans in one line, and return the exit code."""
    try:
        run(args)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
