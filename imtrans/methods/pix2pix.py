"""pix2pix: image-to-image translation with a conditional adversarial network."""

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from imtrans.checks import check_bool, in_range
from imtrans.errors import ArgumentError, ShapeError, one_line
from imtrans.methods import optim
from imtrans.methods.base import Translation
from imtrans.methods.image_pool import ImagePool
from imtrans.nn.losses import GANLoss, feature_matching_loss, logits_of


class Pix2Pix(nn.Module):
    """pix2pix: a generator from source to target, and a discriminator that sees source and image together.

    ``G* = arg min_G max_D  GAN(G, D) + l1_weight * L1(G)``. Ablations of the paper's table 1:

    - cGAN: ``l1_weight=0``.
    - GAN, L1 + GAN: ``conditional=False``, where the discriminator sees the image alone.
    - L1: ``discriminator=None``.

    pix2pixHD: a `imtrans.MultiscaleDiscriminator`, a `feature_weight`, a `perceptual` loss, no L1 term and
    ``GANLoss("lsgan", scales="sum")``. (pix2pixHD updates the generator before the discriminator.)

    Args:
        generator: maps ``(b, c, h, w)`` to ``(b, c', h, w)``.
        discriminator: maps source and image, concatenated along the channels, to logits; None for L1 alone.
        gan_loss: a `GANLoss`, or its mode.
        gan_weight: weight of the generator's adversarial term.
        l1_weight: weight of the L1 term.
        feature_weight: weight of `imtrans.feature_matching_loss`, 10 in pix2pixHD. The discriminator needs a method
            ``features``.
        perceptual: a loss of output and target such as `imtrans.perceptual_loss`; None for no such term.
        perceptual_weight: weight of the perceptual term, 10 in pix2pixHD.
        conditional: whether the discriminator sees the source.
        pool_size: size of the `ImagePool` for the discriminator's fakes; 0 in the paper.

    Raises:
        ArgumentError: a negative weight, an unknown mode, a discriminator that the loss cannot train or that has no
            features to match, or no loss term.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", equation 4.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        *,
        gan_loss: str | GANLoss = "vanilla",
        gan_weight: float = 1.0,
        l1_weight: float = 100.0,
        feature_weight: float = 0.0,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 10.0,
        conditional: bool = True,
        pool_size: int = 0,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.gan_loss = gan_loss if isinstance(gan_loss, GANLoss) else GANLoss(gan_loss)
        self.gan_weight = in_range("Pix2Pix", "gan_weight", gan_weight, 0.0)
        self.l1_weight = in_range("Pix2Pix", "l1_weight", l1_weight, 0.0)
        self.feature_weight = in_range("Pix2Pix", "feature_weight", feature_weight, 0.0)
        if perceptual is not None and not _takes_two(perceptual):
            raise ArgumentError(
                f"Pix2Pix: perceptual must be an nn.Module that maps output and target to a scalar, got a "
                f"{type(perceptual).__name__}. Use perceptual_loss(network, layers, weights), or None."
            )
        self.perceptual = perceptual
        self.perceptual_weight = in_range("Pix2Pix", "perceptual_weight", perceptual_weight, 0.0)
        check_bool("Pix2Pix", "conditional", conditional)
        self.conditional = conditional
        self.pool = ImagePool(pool_size)
        if discriminator is not None:
            self.gan_loss.check(discriminator)
        if feature_weight > 0 and not callable(getattr(discriminator, "features", None)):
            found = "there is none" if discriminator is None else f"{type(discriminator).__name__} has none"
            raise ArgumentError(
                f"Pix2Pix: feature_weight={feature_weight} needs a discriminator with a method features(images) that "
                f"returns the output of each layer, and {found}. Use PatchDiscriminator or MultiscaleDiscriminator, or "
                "feature_weight=0."
            )
        no_perceptual = perceptual is None or perceptual_weight == 0
        if l1_weight == 0 and no_perceptual and (discriminator is None or gan_weight == feature_weight == 0):
            without = "without a discriminator" if discriminator is None else "with gan_weight=0"
            raise ArgumentError(
                f"Pix2Pix: {without} and with l1_weight=0 there is nothing to minimise. "
                "Give a discriminator and a positive gan_weight, or a positive l1_weight, or a perceptual loss."
            )

    def make_optimizers(self, lr: float, betas: tuple[float, float]) -> dict[str, Optimizer]:
        """Make an Adam optimizer for each network."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: optim.adam(net.parameters(), lr, betas) for name, net in networks.items() if net is not None}

    def step(self, batch: dict[str, Tensor], optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """Train on one batch: translate, update the discriminator, update the generator against the new one.

        Shape: ``batch["source"]``: ``(b, c, h, w)``; ``batch["target"]``: ``(b, c', h, w)``, both in [-1, 1].

        Returns:
            The losses as detached scalars: ``G_l1`` (weighted); with a discriminator ``D_real``, ``D_fake``, ``G_gan``,
            with a `feature_weight` ``G_features`` (weighted), and with wgangp ``D_penalty``; with a `perceptual` loss
            ``G_perceptual`` (weighted).

        Raises:
            ShapeError: the output of the generator has another shape than the target.

        Source: Isola et al. 2017, section 3.3; the discriminator's objective is halved.
        """
        source, target = batch["source"], batch["target"]
        fake = self.translated(source)
        _check_output(source, fake, target)
        losses: dict[str, Tensor] = {}
        adversarial = fake.new_zeros(())
        if self.discriminator is not None:
            fake_pair = self.pool(self._pair(source, fake.detach()))
            real_pair = self._pair(source, target)
            # Between two updates a spectral norm gives the same weights: they are computed once, with one iteration.
            with parametrize.cached():
                losses["D_fake"] = self.gan_loss.fake(self.discriminator(fake_pair))
                losses["D_real"] = self.gan_loss.real(self.discriminator(real_pair))
                if self.gan_loss.mode == "wgangp":
                    losses["D_penalty"] = self.gan_loss.penalty(self.discriminator, real_pair, fake_pair)
            optim.step(optimizers["discriminator"], 0.5 * torch.stack([*losses.values()]).sum())

            losses |= self._generator_losses(self._pair(source, fake), real_pair)
            adversarial = self.gan_weight * losses["G_gan"] + losses.get("G_features", 0.0)
        losses["G_l1"] = self.l1_weight * F.l1_loss(fake, target)
        if self.perceptual is not None:
            losses["G_perceptual"] = self.perceptual_weight * self.perceptual(fake, target)
            adversarial = adversarial + losses["G_perceptual"]
        optim.step(optimizers["generator"], adversarial + losses["G_l1"])
        return {name: loss.detach() for name, loss in losses.items()}

    def _generator_losses(self, fake_pair: Tensor, real_pair: Tensor) -> dict[str, Tensor]:
        discriminator = cast(Any, self.discriminator)
        if self.feature_weight == 0:
            return {"G_gan": self.gan_loss.generator(discriminator(fake_pair))}
        with parametrize.cached():
            fake = discriminator.features(fake_pair)
            with torch.no_grad():
                real = discriminator.features(real_pair)
        matching = feature_matching_loss(real, fake, weight=self.feature_weight)
        return {"G_gan": self.gan_loss.generator(logits_of(fake)), "G_features": matching}

    def translated(self, source: Tensor) -> Tensor:
        """Return the image that the losses see: the output of the generator, unless overridden."""
        fake: Tensor = self.generator(source)
        return fake

    def _pair(self, source: Tensor, image: Tensor) -> Tensor:
        return torch.cat([source, image], dim=1) if self.conditional else image

    def settings(self) -> dict[str, Any]:
        """Return the arguments that change the training, besides the networks, for ``config.json``."""
        names = ("gan_weight", "l1_weight", "feature_weight", "perceptual_weight", "conditional")
        own = {name: getattr(self, name) for name in names}
        perceptual = None if self.perceptual is None else one_line(repr(self.perceptual))
        return {**self.gan_loss.settings(), **own, "perceptual": perceptual, "pool_size": self.pool.size}

    def translations(self) -> Sequence[Translation]:
        """Source to target, by the generator."""
        return (Translation("generator", self.generator),)


def _takes_two(loss: object) -> bool:
    """Whether `loss` is a module that takes two tensors, unlike a feature network."""
    try:
        return isinstance(loss, nn.Module) and bool(inspect.signature(loss.forward).bind(None, None))
    except TypeError:
        return False


def _check_output(source: Tensor, output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise ShapeError(
            f"Pix2Pix: the generator gives {tuple(output.shape)} for a source of {tuple(source.shape)}, and the target "
            f"is {tuple(target.shape)}. Give pairs of one size, and a generator with the channels of the target."
        )
