"""CycleGAN: image-to-image translation without pairs."""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from imtrans.checks import in_range
from imtrans.errors import ArgumentError
from imtrans.methods import optim
from imtrans.methods.base import Translation
from imtrans.methods.image_pool import ImagePool
from imtrans.methods.optim import adam
from imtrans.nn.losses import GANLoss


class CycleGAN(nn.Module):
    """The method of CycleGAN: two generators, there and back, and a judge of each side's pictures.

    A source and a target of a sample have nothing to do with one another. Each generator is to make pictures that the
    discriminator of its side takes for real ones, and to undo what the other one made (the cycle).

    Args:
        to_target: maps a source ``(b, c, h, w)`` to a target ``(b, c', h, w)``.
        to_source: maps a target to a source.
        target_discriminator: maps a target alone to logits.
        source_discriminator: maps a source alone to logits.
        gan_loss: a mode of `GANLoss`, or one.
        source_cycle_weight: of the L1 distance from a source to what comes back of it.
        target_cycle_weight: likewise of a target.
        identity_weight: of the L1 distance from a target to what `to_target` makes of it, as a share of
            `target_cycle_weight`; likewise for the source. 0 does not compute it.
        pool_size: of each of the two pools that the discriminators' fakes pass through.

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
                "CycleGAN: to_target, to_source, target_discriminator and source_discriminator must be four modules, "
                f"got {', '.join(type(network).__name__ for network in networks)}, or one of them twice. Make each."
            )
        for discriminator in (target_discriminator, source_discriminator):
            self.gan_loss.check(discriminator)
        self._check_channels()

    def make_optimizers(self, lr: float, betas: tuple[float, float]) -> dict[str, Optimizer]:
        """One Adam for both generators, one for both discriminators."""
        generators = chain(self.to_target.parameters(), self.to_source.parameters())
        discriminators = chain(self.target_discriminator.parameters(), self.source_discriminator.parameters())
        return {"generators": adam(generators, lr, betas), "discriminators": adam(discriminators, lr, betas)}

    def step(self, batch: dict[str, Tensor], optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """Train on one batch: translate there and back, update both generators, then both discriminators.

        Shape: ``batch["source"]``: ``(b, c, h, w)``; ``batch["target"]``: ``(b, c', h, w)``, both in [-1, 1].

        Returns:
            The losses, detached scalars, weighted as they are added up: ``G_target`` (how `to_target` fares with the
            discriminator), ``cycle_source`` (there and back), ``identity_target``, ``D_target`` (halved; with the
            penalty of wgangp), and the same four of the other side.

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
            "cycle_source": self.source_cycle_weight * F.l1_loss(cycled_source, source),
            "cycle_target": self.target_cycle_weight * F.l1_loss(cycled_target, target),
        }
        if self.identity_weight > 0:
            same_target, same_source = self.to_target(target), self.to_source(source)
            losses["identity_target"] = self.identity_weight * self.target_cycle_weight * F.l1_loss(same_target, target)
            losses["identity_source"] = self.identity_weight * self.source_cycle_weight * F.l1_loss(same_source, source)
        optim.step(optimizers["generators"], torch.stack([*losses.values()]).sum())

        judged = {
            "D_target": self._judged(self.target_discriminator, target, self.target_pool(fake_target)),
            "D_source": self._judged(self.source_discriminator, source, self.source_pool(fake_source)),
        }
        optim.step(optimizers["discriminators"], judged["D_target"] + judged["D_source"])
        return {name: loss.detach() for name, loss in (losses | judged).items()}

    def _judged(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.gan_loss.discriminator(discriminator(real), discriminator(fake))
        return 0.5 * (loss + self.gan_loss.penalty(discriminator, real, fake))

    def translations(self) -> Sequence[Translation]:
        """Source to target by `to_target`, target to source by `to_source`."""
        there, back = self.to_target, self.to_source
        return (
            Translation("to_target", there, "source", "to_target", "target", inverse=back, paired=False),
            Translation("to_source", back, "target", "to_source", "source", inverse=there, paired=False),
        )

    def _check_channels(self) -> None:
        source, target = getattr(self.to_target, "in_channels", None), getattr(self.to_target, "out_channels", None)
        if source is None or target is None:
            return  # a module that does not tell
        wanted = {
            ("to_source", "in_channels"): target,
            ("to_source", "out_channels"): source,
            ("target_discriminator", "in_channels"): target,
            ("source_discriminator", "in_channels"): source,
        }
        for (name, what), channels in wanted.items():
            if (found := getattr(getattr(self, name), what, channels)) != channels:
                raise ArgumentError(
                    f"CycleGAN: to_target maps {source} channels to {target}, and {name} has {what}={found}. "
                    f"Give one with {what}={channels}."
                )
        if self.identity_weight > 0 and source != target:
            raise ArgumentError(
                f"CycleGAN: identity_weight={self.identity_weight:g} asks the generators for what they are given, and "
                f"to_target maps {source} channels to {target}. Use identity_weight=0, or channels that are equal."
            )
