"""pix2pix: image-to-image translation with a conditional adversarial network."""

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from imtrans.checks import check_bool, in_range, one_of
from imtrans.errors import ArgumentError, ShapeError, one_line
from imtrans.methods import optim
from imtrans.methods.base import Translation
from imtrans.methods.image_pool import ImagePool
from imtrans.nn.losses import PIXEL_LOSSES, GANLoss, feature_matching_loss, logits_of, mode_seeking_loss
from imtrans.nn.noise import draw_noise, noise_channels


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
        l1_weight: weight of the pixel loss, which is L1 by default.
        pixel_loss: ``"l1" | "l2" | "charbonnier"``, see `imtrans.nn.losses.PIXEL_LOSSES`.
        feature_weight: weight of `imtrans.feature_matching_loss`, 10 in pix2pixHD. The discriminator needs a method
            ``features``.
        perceptual: a loss of output and target such as `imtrans.perceptual_loss`; None for no such term.
        perceptual_weight: weight of the perceptual term, 10 in pix2pixHD.
        d_loss_weight: factor of the discriminator's loss: 0.5 in the paper, 1 in TensorFlow's tutorial.
        diversity_weight: weight of `imtrans.mode_seeking_loss` of two outputs for each source, so that the generator
            does not ignore its noise; the second output costs one more pass of the generator. 1 in the authors' code.
            The generator needs a positive attribute `noise_channels`.
        conditional: whether the discriminator sees the source.
        pool_size: size of the `ImagePool` for the discriminator's fakes; 0 in the paper.

    Raises:
        ArgumentError: a negative weight, an unknown mode or pixel loss, a discriminator that the loss cannot train or
            that has no features to match, a `diversity_weight` for a generator without noise, or no loss term.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", equation 4. For the
    diversity term, Mao et al. 2019, equation 5.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        *,
        gan_loss: str | GANLoss = "vanilla",
        gan_weight: float = 1.0,
        l1_weight: float = 100.0,
        pixel_loss: str = "l1",
        feature_weight: float = 0.0,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 10.0,
        d_loss_weight: float = 0.5,
        diversity_weight: float = 0.0,
        conditional: bool = True,
        pool_size: int = 0,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.gan_loss = gan_loss if isinstance(gan_loss, GANLoss) else GANLoss(gan_loss)
        self.gan_weight = in_range("Pix2Pix", "gan_weight", gan_weight, 0.0)
        self.l1_weight = in_range("Pix2Pix", "l1_weight", l1_weight, 0.0)
        self.pixel_loss = one_of("Pix2Pix", "pixel_loss", pixel_loss, PIXEL_LOSSES)
        self.feature_weight = in_range("Pix2Pix", "feature_weight", feature_weight, 0.0)
        if perceptual is not None and not _takes_two(perceptual):
            raise ArgumentError(
                f"Pix2Pix: perceptual must be an nn.Module that maps output and target to a scalar, got a "
                f"{type(perceptual).__name__}. Use perceptual_loss(network, layers, weights), or None."
            )
        self.perceptual = perceptual
        self.perceptual_weight = in_range("Pix2Pix", "perceptual_weight", perceptual_weight, 0.0)
        self.d_loss_weight = in_range("Pix2Pix", "d_loss_weight", d_loss_weight, 0.0)
        self.diversity_weight = in_range("Pix2Pix", "diversity_weight", diversity_weight, 0.0)
        if diversity_weight > 0 and noise_channels(generator) == 0:
            raise ArgumentError(
                f"Pix2Pix: diversity_weight={diversity_weight} compares outputs for different noise, and the generator "
                f"{type(generator).__name__} takes none. Use UNetGenerator(noise_channels=8), or diversity_weight=0."
            )
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
            The losses as detached scalars: ``G_l1`` (or ``G_`` and the name of another `pixel_loss`), ``G_features``,
            ``G_perceptual`` and ``G_diversity``, if they have a weight, weighted; with a discriminator ``D_real``,
            ``D_fake`` and ``G_gan``, and with wgangp ``D_penalty``.

        Raises:
            ShapeError: the output of the generator has another shape than the target.

        Source: Isola et al. 2017, section 3.3; the discriminator's objective is halved, see `d_loss_weight`.
        """
        source, target = batch["source"], batch["target"]
        fake, diversity = self._translate(source)
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
            optim.step(optimizers["discriminator"], self.d_loss_weight * torch.stack([*losses.values()]).sum())

            losses |= self._generator_losses(self._pair(source, fake), real_pair)
            adversarial = self.gan_weight * losses["G_gan"] + losses.get("G_features", 0.0)
        pixel = losses[f"G_{self.pixel_loss}"] = self.l1_weight * PIXEL_LOSSES[self.pixel_loss](fake, target)
        if self.perceptual is not None:
            losses["G_perceptual"] = self.perceptual_weight * self.perceptual(fake, target)
            adversarial = adversarial + losses["G_perceptual"]
        losses |= diversity
        optim.step(optimizers["generator"], adversarial + sum(diversity.values(), pixel))
        return {name: loss.detach() for name, loss in losses.items()}

    def _translate(self, source: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output, and with a `diversity_weight` the loss ``G_diversity``, of a second output."""
        if self.diversity_weight == 0:
            return self.translated(source), {}  # a generator with noise draws it
        noises = [draw_noise(source, noise_channels(self.generator)) for _ in range(2)]
        fake, other = (self.translated(source, noise) for noise in noises)
        return fake, {"G_diversity": self.diversity_weight * mode_seeking_loss(fake, other, *noises)}

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

    def translated(self, source: Tensor, *noise: Tensor) -> Tensor:
        """Return the image that the losses see: the output of the generator, unless overridden."""
        fake: Tensor = self.generator(source, *noise)
        return fake

    def _pair(self, source: Tensor, image: Tensor) -> Tensor:
        return torch.cat([source, image], dim=1) if self.conditional else image

    def settings(self) -> dict[str, Any]:
        """Return the arguments that change the training, besides the networks, for ``config.json``."""
        weights = (
            "gan_weight",
            "l1_weight",
            "feature_weight",
            "perceptual_weight",
            "diversity_weight",
            "d_loss_weight",
        )
        names = (*weights, "pixel_loss", "conditional")
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
