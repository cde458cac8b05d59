"""Named recipes: networks, losses and trainer arguments that belong together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from imtrans.checks import at_least, one_of
from imtrans.data.crop_dataset import Size, height_and_width
from imtrans.errors import ArgumentError, join_names
from imtrans.methods.colorization import Colorization
from imtrans.methods.cyclegan import CycleGAN
from imtrans.methods.inpainting import Inpainting
from imtrans.methods.pix2pix import Pix2Pix
from imtrans.nn.init import init_net
from imtrans.nn.patchgan import PatchDiscriminator
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator


@dataclass(frozen=True)
class Settings:
    """Keyword arguments that a recipe sets where they differ from the defaults of the classes."""

    generator: Mapping[str, Any] = field(default_factory=dict)
    discriminator: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)


_SHARP = Settings(
    generator={"upsample": "nearest"}, discriminator={"spectral_norm": True}, method={"feature_weight": 10.0}
)
RECIPES: dict[str, dict[type[nn.Module], Settings]] = {
    "paper": {Pix2Pix: Settings(), Colorization: Settings(), Inpainting: Settings(), CycleGAN: Settings()},
    "sharp": {Pix2Pix: _SHARP, Colorization: _SHARP, Inpainting: _SHARP},
}
"""The settings of each recipe, by the class of the method."""


class Recipe(NamedTuple):
    """A method, and the arguments of `imtrans.Trainer` that belong to it."""

    method: nn.Module
    trainer: dict[str, Any]


def recipe(
    name: str,
    method: type[nn.Module] = Pix2Pix,
    *,
    size: Size = 256,
    base_channels: int = 64,
    in_channels: int | None = None,
    out_channels: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Recipe:
    """Make the networks and the method of a recipe, with initial weights, and the arguments of its trainer.

    - ``"paper"``: the defaults of the classes, which follow the papers.
    - ``"sharp"``, for all but `CycleGAN`: the decoder resizes by nearest neighbour instead of deconvolving, the
      PatchGAN has spectral norm, and the generator matches its features.

    `CycleGAN` gets two `ResnetGenerator`, the other methods a `UNetGenerator`.

    Args:
        name: ``"paper" | "sharp"``.
        method: `Pix2Pix`, `Colorization`, `Inpainting` or `CycleGAN`.
        size: height and width of the images: a number, or ``(height, width)``. It sets the depth of the U-Net, and
            the number of residual blocks.
        base_channels: width of all networks.
        in_channels: channels of the source; None for 3, 1 for `Colorization`, and 4 for `Inpainting`.
        out_channels: channels of the target; None for 3, and 2 for `Colorization`.
        seed: seed of the initial weights, and of the trainer.
        device: of the networks, see `imtrans.init_net`.

    Returns:
        ``(method, trainer)``. `trainer` holds the learning rate, its schedule, the batch size and the seed, but no
        number of epochs, and names the recipe in ``config.json``.

    Raises:
        ArgumentError: an unknown recipe or method, or a value that is not allowed.

    Source: Wang et al. 2018 (arXiv:1711.11585), section 3.2 (feature matching); Odena et al. 2016 (resizing); Miyato
    et al. 2018 (spectral norm).

    >>> method, arguments = recipe("sharp", size=64, base_channels=4, seed=0)
    >>> method.generator.depth, method.feature_weight, arguments["lr"]
    (6, 10.0, 0.0002)
    """
    by_method = RECIPES[one_of("recipe", "name", name, RECIPES)]
    if method not in by_method:
        raise ArgumentError(
            f"recipe: the recipe {name!r} is for {join_names([each.__name__ for each in by_method])}, got the method "
            f"{getattr(method, '__name__', method)!r}. Give one of these classes, or another recipe."
        )
    settings = by_method[method]
    for side in height_and_width(size):
        at_least("recipe", "size", side, 4)
    usual: dict[type[nn.Module], tuple[int, int]] = {Colorization: (1, 2), Inpainting: (4, 3)}
    source, target = usual.get(method, (3, 3))
    source = source if in_channels is None else in_channels
    target = target if out_channels is None else out_channels

    def generator(from_channels: int, to_channels: int, offset: int) -> nn.Module:
        own = {"base_channels": base_channels, **settings.generator}
        if method is CycleGAN:
            made: nn.Module = ResnetGenerator(from_channels, to_channels, num_blocks=resnet_blocks(size), **own)
        else:
            made = UNetGenerator(from_channels, to_channels, depth=unet_depth(size), **own)
        return init_net(made, device, seed=seed + offset)

    def discriminator(channels: int, offset: int) -> nn.Module:
        own = {"base_channels": base_channels, "norm": "instance" if method is CycleGAN else "batch"}
        made = PatchDiscriminator(channels, **own | dict(settings.discriminator))
        return init_net(made, device, seed=seed + offset)

    if method is CycleGAN:
        built: nn.Module = CycleGAN(
            generator(source, target, 0),
            generator(target, source, 1),
            target_discriminator=discriminator(target, 2),
            source_discriminator=discriminator(source, 3),
            **settings.method,
        )
    else:
        built = method(generator(source, target, 0), discriminator(source + target, 1), **settings.method)
    trainer = {"lr": 2e-4, "betas": (0.5, 0.999), "lr_policy": "linear", "batch_size": 1, "seed": seed}
    return Recipe(built, {**trainer, **settings.trainer, "config": {"recipe": name}})


def unet_depth(size: Size) -> int:
    """Return the depth of a U-Net for images of `size`: 8 if the shorter side has 256 pixels or more."""
    return min(8, min(height_and_width(size)).bit_length() - 1)


def resnet_blocks(size: Size) -> int:
    """Return the number of residual blocks for images of `size`: 9 if the shorter side has 256 pixels or more, or 6."""
    return 9 if min(height_and_width(size)) >= 256 else 6
