"""CycleGAN: image-to-image translation without pairs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imtrans.checks import in_range
from imtrans.errors import ArgumentError, counted
from imtrans.methods import optim
from imtrans.methods.base import Translation
from imtrans.methods.image_pool import ImagePool
from imtrans.nn.losses import GANLoss, l1_loss


class CycleGAN(nn.Module):
    """CycleGAN: a generator and a discriminator for each direction, trained without pairs.

    Each generator learns to fool the discriminator of its output domain, and to invert the other generator.

    Args:
        to_target: generator from source ``(b, c, h, w)`` to target ``(b, c', h, w)``.
        to_source: generator from target to source.
        target_discriminator: maps targets to logits.
        source_discriminator: maps sources to logits.
        gan_loss: a `GANLoss`, or its mode.
        source_cycle_weight: weight of ``L1(to_source(to_target(source)), source)``.
        target_cycle_weight: weight of ``L1(to_target(to_source(target)), target)``.
        identity_weight: weight of the identity losses ``L1(to_target(target), target)`` and
            ``L1(to_source(source), source)``, relative to the cycle weight of the same domain. 0 skips them.
        pool_size: size of each discriminator's `ImagePool`.

    Raises:
        ArgumentError: a negative weight, an unknown mode, a discriminator that the loss cannot train; networks whose
            channels do not fit together, or, with an identity loss, differ between source and target.

    Source: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
    equation 3; the identity loss is in section 5.2, and in their code by default.
    """

    def __init__(
        self,
        to_target: nn.Module,
        to_source: nn.Module,
        *,
        target_discriminator: nn.Module,
        source_discriminator: nn.Module,
        gan_loss: str | GANLoss = "lsgan",
        source_cycle_weight: float = 10.0,
        target_cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
    ) -> None:
        super().__init__()
        self.to_target, self.to_source = to_target, to_source
        self.target_discriminator, self.source_discriminator = target_discriminator, source_discriminator
        self.gan_loss = gan_loss if isinstance(gan_loss, GANLoss) else GANLoss(gan_loss)
        self.source_cycle_weight = in_range("CycleGAN", "source_cycle_weight", source_cycle_weight, 0.0)
        self.target_cycle_weight = in_range("CycleGAN", "target_cycle_weight", target_cycle_weight, 0.0)
        self.identity_weight = in_range("CycleGAN", "identity_weight", identity_weight, 0.0)
        self.target_pool, self.source_pool = ImagePool(pool_size), ImagePool(pool_size, seed=1)
        networks = (to_target, to_source, target_discriminator, source_discriminator)
        if any(not isinstance(network, nn.Module) for network in networks) or len(set(map(id, networks))) < 4:
            raise ArgumentError(
                "CycleGAN: to_target, to_source, target_discriminator and source_discriminator must be four different "
                f"modules, got {', '.join(type(network).__name__ for network in networks)}. Make one for each."
            )
        for discriminator in (target_discriminator, source_discriminator):
            self.gan_loss.check(discriminator)
        self._check_channels()

    def make_optimizers(self, lr: float, betas: tuple[float, float]) -> dict[str, Optimizer]:
        """Make one Adam optimizer for both generators, and one for both discriminators."""
        generators = [*self.to_target.parameters(), *self.to_source.parameters()]
        critics = [*self.target_discriminator.parameters(), *self.source_discriminator.parameters()]
        return {
            "generators": optim.adam(generators, lr, betas),
            "discriminators": optim.adam(critics, lr, betas),
        }

    def step(self, batch: dict[str, Tensor], optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """Train on one batch: translate both ways and back, update both generators, then both discriminators.

        Shape: ``batch["source"]``: ``(b, c, h, w)``; ``batch["target"]``: ``(b, c', h, w)``, both in [-1, 1].

        Returns:
            The losses as detached scalars, weighted: ``G_target`` (adversarial, of `to_target`), ``cycle_source``,
            ``identity_target``, ``D_target`` (halved; with wgangp, penalty included), and the same with source and
            target exchanged.

        Source: Zhu et al. 2017, sections 3 and 4.
        """
        source, target = batch["source"], batch["target"]
        fake_target = self.to_target(source)
        cycled_source = self.to_source(fake_target)
        fake_source = self.to_source(target)
        cycled_target = self.to_target(fake_source)
        losses = {
            "G_target": self.gan_loss.generator(self.target_discriminator(fake_target)),
            "G_source": self.gan_loss.generator(self.source_discriminator(fake_source)),
            "cycle_source": self.source_cycle_weight * l1_loss(cycled_source, source),
            "cycle_target": self.target_cycle_weight * l1_loss(cycled_target, target),
        }
        if self.identity_weight > 0:
            same_target, same_source = self.to_target(target), self.to_source(source)
            losses["identity_target"] = self.identity_weight * self.target_cycle_weight * l1_loss(same_target, target)
            losses["identity_source"] = self.identity_weight * self.source_cycle_weight * l1_loss(same_source, source)
        optim.step(optimizers["generators"], torch.stack([*losses.values()]).sum())

        critics = {
            "D_target": self._discriminator_loss(self.target_discriminator, target, self.target_pool(fake_target)),
            "D_source": self._discriminator_loss(self.source_discriminator, source, self.source_pool(fake_source)),
        }
        optim.step(optimizers["discriminators"], critics["D_target"] + critics["D_source"])
        return {name: loss.detach() for name, loss in (losses | critics).items()}

    def _discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.gan_loss.discriminator(discriminator(real), discriminator(fake))
        return 0.5 * (loss + self.gan_loss.penalty(discriminator, real, fake))

    def settings(self) -> dict[str, Any]:
        """Return the arguments that change the training, besides the networks, for ``config.json``."""
        weights = ("source_cycle_weight", "target_cycle_weight", "identity_weight")
        own = {name: getattr(self, name) for name in weights}
        return {**self.gan_loss.settings(), **own, "pool_size": self.target_pool.size}

    def translations(self) -> Sequence[Translation]:
        """Source to target by `to_target`, target to source by `to_source`."""
        a, b = self.to_target, self.to_source
        return (
            Translation("to_target", a, "source", "to_target", "target", inverse=b, paired=False),
            Translation("to_source", b, "target", "to_source", "source", inverse=a, paired=False),
        )

    def _check_channels(self) -> None:
        source, target = getattr(self.to_target, "in_channels", None), getattr(self.to_target, "out_channels", None)
        if source is None or target is None:
            return  # not a network of imtrans
        for name, attribute, channels in (
            ("to_source", "in_channels", target),
            ("to_source", "out_channels", source),
            ("target_discriminator", "in_channels", target),
            ("source_discriminator", "in_channels", source),
        ):
            if (found := getattr(getattr(self, name), attribute, channels)) != channels:
                raise ArgumentError(
                    f"CycleGAN: to_target maps {counted(source, 'channel')} to {target}, and {name} has "
                    f"{attribute}={found}. Use {attribute}={channels}."
                )
        if self.identity_weight > 0 and source != target:
            raise ArgumentError(
                f"CycleGAN: identity_weight={self.identity_weight:g} needs equal channels of source and target, and "
                f"to_target maps {counted(source, 'channel')} to {target}. Use identity_weight=0, or equal channels."
            )
