"""The networks and the arguments of the method that the flags ask for, with initial weights or with saved ones."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from imtrans.cli.train.flags import METHOD_FLAGS, chosen, default_of, given
from imtrans.convert import load_pretrained
from imtrans.convert.published import is_published
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import ArgumentError, HubError, SavedModelError, counted, join_names
from imtrans.hub.pretrained import Pretrained
from imtrans.methods import Method
from imtrans.methods.recipes import RECIPES, Settings, unet_depth
from imtrans.nn import PatchDiscriminator, PixelDiscriminator, ResnetGenerator, UNetGenerator, init_net


def paired_method(args: argparse.Namespace, channels: tuple[int, int] = (3, 3)) -> nn.Module:
    """Make the class `args.method` with its networks, for paired data with these channels of source and target."""
    unet = {"depth": unet_depth(args.size)}
    generator = make_generator(args, UNetGenerator, unet, channels, seed=args.seed)
    discriminator = make_discriminator(args, sum(channels), seed=args.seed + 1)
    method: nn.Module = args.method(generator, discriminator, **method_arguments(args))
    return method


def make_generator(
    args: argparse.Namespace,
    default: type[Pretrained],
    arguments: dict[str, Any],
    channels: tuple[int, int] = (3, 3),
    *,
    seed: int,
) -> Pretrained:
    """Make the generator of --generator, or a `default` with its `arguments`, with initial weights."""
    settings = {"base_channels": args.base_channels, "norm": args.norm, **settings_of(args).generator}
    make: Callable[..., Pretrained]
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


def make_discriminator(args: argparse.Namespace, in_channels: int, *, seed: int) -> Pretrained:
    """Make the discriminator of --discriminator with initial weights."""
    settings = {"base_channels": args.base_channels, "norm": args.norm, **chosen(n_layers=args.n_layers)}
    settings |= settings_of(args).discriminator
    if args.discriminator == "patch":
        return _init(args, PatchDiscriminator(in_channels, **settings), seed)
    if args.n_layers is not None:
        raise ArgumentError("--n-layers has no effect with --discriminator pixel, which has no strides. Leave it out.")
    return _init(args, PixelDiscriminator(in_channels, **settings), seed)


def _init(args: argparse.Namespace, network: Pretrained, seed: int) -> Pretrained:
    return init_net(network, args.device, seed=seed, **init_arguments(args))


def init_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `imtrans.init_net` that the flags set."""
    if args.init != "kaiming":
        return {"scheme": args.init, "gain": given(args.init_gain, default_of(init_net, "gain"))}
    if args.init_gain is not None:
        raise ArgumentError("--init-gain has no effect with --init kaiming, whose gain fits ReLU. Leave it out.")
    return {"scheme": args.init}


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings of --recipe."""
    return RECIPES[args.recipe][args.method]


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
            lines.append(f"{part}: initial weights, because {name} has no folder {folder}")
            continue
        where = name if root else f"{name}/{folder}"
        try:
            saved = load_pretrained(name, subfolder=None if root else folder)
        except HubError as error:
            if required:
                raise
            lines.append(f"{part}: initial weights, because {error}")
            continue
        problem = _other_sizes(where, saved, network)
        if problem and required:
            raise SavedModelError(
                f"{problem} Use the --recipe, --generator, --norm, --size and --base-channels of its training."
            )
        if problem:
            lines.append(f"{part}: initial weights, because {problem}")
            continue
        network.load_state_dict(saved.state_dict())
        differ = _other_arguments(saved, network)
        lines.append(f"{part}: weights of {where}" + (f", which has {join_names(differ)}" if differ else ""))
    return lines


def _other_arguments(saved: Pretrained, network: Pretrained) -> list[str]:
    """Return how the arguments of `saved` differ from the ones of `network`."""
    if type(saved) is not type(network):
        return [f"{type(saved).__name__} instead of {type(network).__name__}"]
    pairs = {argument: (saved.config[argument], value) for argument, value in network.config.items()}
    return [f"{argument}={a!r} instead of {b!r}" for argument, (a, b) in pairs.items() if a != b]


def _other_sizes(name: str, saved: Pretrained, network: Pretrained) -> str:
    """Return how the tensors of `saved` differ from the ones of `network`; an empty text if they fit."""
    theirs, ours = saved.state_dict(), network.state_dict()
    shapes = {key: (tuple(theirs[key].shape), tuple(ours[key].shape)) for key in ours if key in theirs}
    wrong = [f"{key} is {a} instead of {b}" for key, (a, b) in shapes.items() if a != b]
    if alone := len(theirs.keys() ^ ours.keys()):
        wrong = [f"{counted(alone, 'tensor')} in only one of the two", *wrong]
    if not wrong:
        return ""
    return (
        f"--warm-start: {name} has other sizes than the network of this run. Arguments: "
        f"{join_names(_other_arguments(saved, network))}. Tensors: {join_names(wrong, 3)}."
    )
