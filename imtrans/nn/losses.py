"""The objectives of adversarial training."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imtrans.checks import in_range, one_of
from imtrans.errors import ArgumentError, ShapeError

GAN_MODES = ("vanilla", "lsgan", "wgangp", "hinge")
Logits = Tensor | Sequence[Tensor]
Features = Sequence[Tensor] | Sequence[Sequence[Tensor]]


class GANLoss(nn.Module):
    """What a discriminator and a generator minimise, given raw logits.

    ========== =========================================== ===================
    mode       discriminator                               generator
    ========== =========================================== ===================
    vanilla    BCE(real, 1) + BCE(fake, 0)                 BCE(fake, 1)
    lsgan      mean((real - 1)^2) + mean(fake^2)           mean((fake - 1)^2)
    wgangp     mean(fake) - mean(real) + gradient penalty  -mean(fake)
    hinge      mean(relu(1 - real)) + mean(relu(1 + fake)) -mean(fake)
    ========== =========================================== ===================

    Logits are maps of any shape, ``(b, 1, h, w)`` as a rule, or a sequence of them, one for each scale of a
    multi-scale discriminator, whose losses are averaged (SPADE) or summed (pix2pixHD).

    Args:
        mode: one of ``"vanilla" | "lsgan" | "wgangp" | "hinge"``.
        penalty_weight: of the gradient penalty; used by ``"wgangp"`` alone.
        scales: ``"mean"`` or ``"sum"``.

    Raises:
        ArgumentError: an unknown mode or way to reduce the scales, or a negative weight.

    Source: Goodfellow et al. 2014; Mao et al. 2017; Gulrajani et al. 2017; Lim & Ye 2017.

    >>> gan = GANLoss("lsgan")
    >>> gan.discriminator(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    tensor(0.)
    >>> gan.generator(torch.zeros(1, 1, 2, 2))
    tensor(1.)
    """

    def __init__(self, mode: str = "vanilla", *, penalty_weight: float = 10.0, scales: str = "mean") -> None:
        super().__init__()
        self.mode = one_of("GANLoss", "mode", mode, GAN_MODES)
        self.penalty_weight = in_range("GANLoss", "penalty_weight", penalty_weight, 0.0)
        self.scales = one_of("GANLoss", "scales", scales, ("mean", "sum"))

    def real(self, logits: Logits) -> Tensor:
        """The discriminator's loss on logits of real images, a scalar."""
        return self._reduce(logits, self._real)

    def fake(self, logits: Logits) -> Tensor:
        """The discriminator's loss on logits of generated images, a scalar."""
        return self._reduce(logits, self._fake)

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        """What the discriminator minimises, a scalar: its loss on real plus its loss on generated images.

        The gradient penalty of ``"wgangp"`` needs the images: see `penalty`.
        """
        return self.real(real_logits) + self.fake(fake_logits)

    def generator(self, fake_logits: Logits) -> Tensor:
        """What the generator minimises, a scalar."""
        return self._reduce(fake_logits, self._fooled)

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """What to add to the discriminator's loss: the gradient penalty of ``"wgangp"``, 0 in other modes.

        Shape: the discriminator's inputs ``(b, c, h, w)`` twice -> scalar.
        """
        if self.mode != "wgangp" or self.penalty_weight == 0:
            return real.new_zeros(())
        return gradient_penalty(discriminator, real, fake, weight=self.penalty_weight)

    def check(self, discriminator: nn.Module) -> None:
        """Raise if this loss cannot train `discriminator`.

        Raises:
            ArgumentError: ``"wgangp"`` with its penalty, and a batch norm in the discriminator.
        """
        if self.mode == "wgangp" and self.penalty_weight > 0:
            _refuse_batch_norm("GANLoss('wgangp')", discriminator)

    def extra_repr(self) -> str:
        """The mode, for ``print``."""
        return repr(self.mode)

    def _reduce(self, logits: Logits, loss: Callable[[Tensor], Tensor]) -> Tensor:
        if isinstance(logits, Tensor):
            return loss(logits)
        if not logits:
            raise ArgumentError("GANLoss: got an empty sequence of logits; a scale gives one map each.")
        total = torch.stack([loss(scale) for scale in logits]).sum()
        return total / len(logits) if self.scales == "mean" else total

    def _real(self, logits: Tensor) -> Tensor:
        if self.mode == "vanilla":
            return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        if self.mode == "lsgan":
            return (logits - 1).square().mean()
        return F.relu(1 - logits).mean() if self.mode == "hinge" else -logits.mean()

    def _fake(self, logits: Tensor) -> Tensor:
        if self.mode == "vanilla":
            return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        if self.mode == "lsgan":
            return logits.square().mean()
        return F.relu(1 + logits).mean() if self.mode == "hinge" else logits.mean()

    def _fooled(self, logits: Tensor) -> Tensor:
        return -logits.mean() if self.mode == "hinge" else self._real(logits)


def gradient_penalty(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    weight: float = 10.0,
    target: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The WGAN-GP penalty: ``weight * mean_b((||d D(x) / d x||_2 - target)^2)``, a scalar with a graph.

    ``x`` mixes `real` and `fake` in a proportion drawn uniformly for each sample; D(x) is the sum of the
    logit map, and the norm is taken over ``c h w``. For a conditional discriminator, give the concatenated
    pairs.

    Shape: ``(b, c, h, w)`` twice -> scalar.

    Args:
        discriminator: maps ``(b, c, h, w)`` to logits, or to a sequence of them; without batch norm.
        real: its real inputs.
        fake: its generated ones; no gradient flows into either.
        weight: factor of the penalty.
        target: the norm that is asked for.
        generator: draws the proportions instead of PyTorch's global generator.

    Raises:
        ArgumentError: the discriminator has a batch norm, which couples the samples of a batch.
        ShapeError: `real` and `fake` differ in shape.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
    """
    _refuse_batch_norm("gradient_penalty", discriminator)
    if real.shape != fake.shape:
        raise ShapeError(
            f"gradient_penalty: real {tuple(real.shape)} and fake {tuple(fake.shape)} must have one shape."
        )
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, generator=generator)
    mixed = torch.lerp(fake.detach(), real.detach(), share.to(real.dtype)).requires_grad_()
    logits = discriminator(mixed)
    total = logits.sum() if isinstance(logits, Tensor) else torch.stack([m.sum() for m in logits]).sum()
    (gradient,) = torch.autograd.grad(total, mixed, create_graph=True)
    norms = torch.linalg.vector_norm(rearrange(gradient.float(), "b ... -> b (...)"), dim=1)
    return weight * (norms - target).square().mean()


def feature_matching_loss(real_features: Features, fake_features: Features, *, weight: float = 10.0) -> Tensor:
    """How far apart a discriminator's features of real and of generated images are, a scalar.

    ``weight * 4 * mean over scales (mean over layers (L1))``. The logits, which are the last of each scale, do not
    count. No gradient flows into `real_features`.

    Args:
        real_features: what the method ``features`` of a discriminator gives of real images: a tensor for each layer,
            or such a list for each scale.
        fake_features: the same, of generated ones.
        weight: factor of the loss.

    Raises:
        ArgumentError: a scale without a layer before its logits.
        ShapeError: features of different discriminators or images.

    Source: Wang et al. 2018, equation 4; the factor 4 is that of the authors' code.

    >>> real = [torch.zeros(1, 8, 4, 4), torch.zeros(1, 1, 2, 2)]
    >>> fake = [layer + 1 for layer in real]
    >>> feature_matching_loss(real, fake)
    tensor(40.)
    """
    real, fake = _by_scale(real_features), _by_scale(fake_features)
    shapes = [[[tuple(each.shape) for each in scale] for scale in side] for side in (real, fake)]
    if shapes[0] != shapes[1]:
        raise ShapeError(
            f"feature_matching_loss: the features of real images have the shapes {shapes[0]}, those of generated ones "
            f"{shapes[1]}. Take both from one discriminator, and of batches of one size."
        )
    if not real or min(map(len, real)) < 2:
        raise ArgumentError(
            "feature_matching_loss: a scale needs the features of one layer at least, and the logits after them; "
            f"got lists of {[len(scale) for scale in real]}."
        )
    of_scales = [
        torch.stack([F.l1_loss(f, r.detach()) for r, f in zip(reals[:-1], fakes[:-1], strict=True)]).mean()
        for reals, fakes in zip(real, fake, strict=True)
    ]
    return weight * 4 * torch.stack(of_scales).mean()


def logits_of(features: Features) -> Logits:
    """The logits among a discriminator's features: the last, or the last of each scale."""
    by_scale = _by_scale(features)
    return by_scale[0][-1] if isinstance(features[0], Tensor) else [scale[-1] for scale in by_scale]


def _by_scale(features: Features) -> list[list[Tensor]]:
    layers = [each for each in features if isinstance(each, Tensor)]
    return [layers] if layers else [list(scale) for scale in features]


def _refuse_batch_norm(owner: str, discriminator: nn.Module) -> None:
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ArgumentError(
                f"{owner}: the discriminator has a batch norm ({name or 'itself'}). The gradient penalty asks for "
                "each sample's own gradient, and a batch norm makes it depend on the others. "
                "Build it with norm='instance', 'group' or 'none'."
            )
