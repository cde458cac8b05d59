"""Losses of adversarial training."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imtrans.checks import check_bool, in_range, one_of
from imtrans.errors import ArgumentError, ShapeError

GAN_MODES = ("vanilla", "lsgan", "wgangp", "hinge")
Logits = Tensor | Sequence[Tensor]
Features = Sequence[Tensor] | Sequence[Sequence[Tensor]]


class GANLoss(nn.Module):
    """Adversarial loss of a discriminator and a generator, from raw logits.

    ========== =========================================== ===================
    mode       discriminator                               generator
    ========== =========================================== ===================
    vanilla    BCE(real, 1) + BCE(fake, 0)                 BCE(fake, 1)
    lsgan      mean((real - 1)^2) + mean(fake^2)           mean((fake - 1)^2)
    wgangp     mean(fake) - mean(real) + gradient penalty  -mean(fake)
    hinge      mean(relu(1 - real)) + mean(relu(1 + fake)) -mean(fake)
    ========== =========================================== ===================

    Logits are a tensor of any shape, usually ``(b, 1, h, w)``, or a sequence of tensors, one for each scale of a
    multi-scale discriminator. The loss of logits in half precision is computed in float32.

    Args:
        mode: ``"vanilla" | "lsgan" | "wgangp" | "hinge"``.
        penalty_weight: weight of the gradient penalty of ``"wgangp"``.
        scales: reduction over scales: ``"mean"`` (SPADE) or ``"sum"`` (pix2pixHD).

    Raises:
        ArgumentError: an unknown `mode` or `scales`, or a negative weight.

    Source: Goodfellow et al. 2014; Mao et al. 2017; Gulrajani et al. 2017; Lim & Ye 2017.

    >>> gan = GANLoss("lsgan")
    >>> gan.discriminator(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    tensor(0.)
    >>> gan.generator(torch.zeros(1, 1, 2, 2)), gan(torch.zeros(1, 1, 2, 2), True)
    (tensor(1.), tensor(1.))
    """

    def __init__(self, mode: str = "vanilla", *, penalty_weight: float = 10.0, scales: str = "mean") -> None:
        super().__init__()
        self.mode = one_of("GANLoss", "mode", mode, GAN_MODES)
        self.penalty_weight = in_range("GANLoss", "penalty_weight", penalty_weight, 0.0)
        self.scales = one_of("GANLoss", "scales", scales, ("mean", "sum"))

    def forward(self, logits: Logits, real: bool) -> Tensor:
        """Return the discriminator's loss on logits of `real` or generated images, a scalar: `real` or `fake`.

        The call of pytorch-CycleGAN-and-pix2pix. The generator's loss is ``loss(fake_logits, True)``, as there, in all
        modes but ``"hinge"``; `generator` is right in every mode.
        """
        check_bool("GANLoss", "real", real)
        return self.real(logits) if real else self.fake(logits)

    def real(self, logits: Logits) -> Tensor:
        """Return the discriminator's loss on logits of real images, a scalar."""
        return self._loss(logits, self.mode, real=True)

    def fake(self, logits: Logits) -> Tensor:
        """Return the discriminator's loss on logits of generated images, a scalar."""
        return self._loss(logits, self.mode, real=False)

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        """Return the discriminator's loss on real plus generated images, a scalar, without the gradient `penalty`."""
        return self.real(real_logits) + self.fake(fake_logits)

    def generator(self, fake_logits: Logits) -> Tensor:
        """Return the generator's loss on logits of generated images, a scalar."""
        return self._loss(fake_logits, "wgangp" if self.mode == "hinge" else self.mode, real=True)

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the `gradient_penalty` to add to the discriminator's loss with ``"wgangp"``; 0 in other modes.

        Shape: inputs of the discriminator, ``(b, c, h, w), (b, c, h, w)`` -> scalar.
        """
        if self.mode != "wgangp" or self.penalty_weight == 0:
            return real.new_zeros(())
        return gradient_penalty(discriminator, real, fake, weight=self.penalty_weight)

    def check(self, discriminator: nn.Module) -> None:
        """Raise an ArgumentError if the loss has a gradient penalty and `discriminator` has a batch norm."""
        if self.mode == "wgangp" and self.penalty_weight > 0:
            _refuse_batch_norm("GANLoss('wgangp')", discriminator)

    def settings(self) -> dict[str, Any]:
        """Return the arguments, under the names that the configuration of a run gives them."""
        return {"gan_mode": self.mode, "penalty_weight": self.penalty_weight, "gan_scales": self.scales}

    def extra_repr(self) -> str:
        return repr(self.mode)

    def _loss(self, logits: Logits, mode: str, *, real: bool) -> Tensor:
        if not isinstance(logits, Tensor):
            if not logits:
                raise ArgumentError("GANLoss: got an empty sequence of logits. Pass one tensor for each scale.")
            total = torch.stack([self._loss(scale, mode, real=real) for scale in logits]).sum()
            return total / len(logits) if self.scales == "mean" else total
        logits = full_precision(logits)
        if mode == "vanilla":
            return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
        if mode == "lsgan":
            return (logits - float(real)).square().mean()
        if mode == "hinge":
            return F.relu(1 - logits if real else 1 + logits).mean()
        return -logits.mean() if real else logits.mean()


def gradient_penalty(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    weight: float = 10.0,
    target: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the WGAN-GP penalty ``weight * mean_b((||d D(x) / d x||_2 - target)^2)``, a differentiable scalar.

    ``x`` interpolates between `real` and `fake` with a uniform random weight for each sample. ``D(x)`` is the sum of
    the logits, and the norm is taken over ``c h w``. For a conditional discriminator, pass concatenated pairs.

    Shape: ``(b, c, h, w), (b, c, h, w)`` -> scalar.

    Args:
        discriminator: maps ``(b, c, h, w)`` to logits or a sequence of them; has no batch norm.
        real: real inputs; no gradient flows into them.
        fake: generated inputs; no gradient flows into them.
        generator: draws the random weights; None for PyTorch's global generator.

    Raises:
        ArgumentError: the discriminator has a batch norm, which couples the samples of a batch.
        ShapeError: `real` and `fake` have different shapes.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
    """
    _refuse_batch_norm("gradient_penalty", discriminator)
    if real.shape != fake.shape:
        raise ShapeError(
            f"gradient_penalty: real {tuple(real.shape)} and fake {tuple(fake.shape)} must have the same shape."
        )
    t = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, generator=generator)
    mixed = torch.lerp(fake.detach(), real.detach(), t.to(real.dtype)).requires_grad_()
    logits = discriminator(mixed)
    scales = [logits] if isinstance(logits, Tensor) else logits
    total = torch.stack([full_precision(scale).sum() for scale in scales]).sum()
    (gradient,) = torch.autograd.grad(total, mixed, create_graph=True)
    norms = torch.linalg.vector_norm(rearrange(gradient.float(), "b ... -> b (...)"), dim=1)
    return weight * (norms - target).square().mean()


def feature_matching_loss(real_features: Features, fake_features: Features, *, weight: float = 10.0) -> Tensor:
    """Return ``weight * 4 * mean over scales (mean over layers (L1))``, the feature matching loss, a scalar.

    The logits, the last tensor of each scale, do not count. No gradient flows into `real_features`.

    Args:
        real_features: result of a discriminator's ``features`` for real images: a list with a tensor for each layer,
            or a list of such lists, one for each scale.
        fake_features: the same for generated images.

    Raises:
        ArgumentError: a scale without a layer before its logits.
        ShapeError: real and fake features have different shapes.

    Source: Wang et al. 2018, equation 4; the factor 4 is from the authors' code.

    >>> real = [torch.zeros(1, 8, 4, 4), torch.zeros(1, 1, 2, 2)]
    >>> fake = [layer + 1 for layer in real]
    >>> feature_matching_loss(real, fake)
    tensor(40.)
    """
    real, fake = _by_scale(real_features), _by_scale(fake_features)
    shapes = [[[tuple(each.shape) for each in scale] for scale in side] for side in (real, fake)]
    if shapes[0] != shapes[1]:
        raise ShapeError(
            f"feature_matching_loss: real_features have the shapes {shapes[0]}, fake_features {shapes[1]}. Compute "
            "both with the same discriminator, from batches of the same shape."
        )
    if not real or min(map(len, real)) < 2:
        raise ArgumentError(
            "feature_matching_loss: each scale needs the features of at least one layer and the logits, got lists of "
            f"{[len(scale) for scale in real]} tensors."
        )
    losses = [
        torch.stack([l1_loss(f, r.detach()) for r, f in zip(reals[:-1], fakes[:-1], strict=True)]).mean()
        for reals, fakes in zip(real, fake, strict=True)
    ]
    return weight * 4 * torch.stack(losses).mean()


def full_precision(x: Tensor) -> Tensor:
    """Return `x` in float32 if it is in half precision, else `x`. Sums of many values need the longer mantissa.

    In fp16, the first gradient of a mean would be the loss scale, 65536, which is above the largest value.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return ``mean(|output - target|)``, a scalar; of half precision, in float32.

    Shape: two tensors of one shape -> scalar.

    >>> l1_loss(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2))
    tensor(1.)
    """
    return F.l1_loss(full_precision(output), full_precision(target))


def l2_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return ``mean((output - target)^2)``, a scalar; of half precision, in float32.

    Shape: two tensors of one shape -> scalar.

    >>> l2_loss(torch.zeros(1, 3, 2, 2), 2 * torch.ones(1, 3, 2, 2))
    tensor(4.)
    """
    return F.mse_loss(full_precision(output), full_precision(target))


def charbonnier_loss(output: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Return ``mean(sqrt((output - target)^2 + epsilon^2))``, an L1 loss that is smooth at 0; a scalar.

    Shape: two tensors of one shape -> scalar.

    Source: Charbonnier et al. 1994; Lai et al. 2017, "Deep Laplacian Pyramid Networks", section 3.2 (`epsilon`).

    >>> charbonnier_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
    tensor(0.0010)
    """
    return ((output.float() - target.float()).square() + epsilon**2).sqrt().mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_loss,
    "l2": l2_loss,
    "charbonnier": charbonnier_loss,
}
"""Losses that compare output and target pixel by pixel, means over all values."""


def mode_seeking_loss(
    first: Tensor, second: Tensor, first_noise: Tensor, second_noise: Tensor, *, eps: float = 1e-5
) -> Tensor:
    """Return ``mean_b 1 / (d(first, second) / d(first_noise, second_noise) + eps)``, a scalar that rewards diversity.

    ``d`` is the mean absolute difference of two images or of their noise vectors, for each sample of the batch.

    Shape: ``(b, c, h, w), (b, c, h, w), (b, n), (b, n)`` -> scalar.

    Args:
        first: outputs of a generator for some sources.
        second: its outputs for the same sources and other noise.
        first_noise: noise of `first`.
        second_noise: noise of `second`.
        eps: bounds the loss by ``1 / eps`` where two outputs are equal.

    Raises:
        ArgumentError: `eps` is not above 0.
        ShapeError: the two images or the two noises differ in shape, or their batches in size.

    Source: Mao et al. 2019, "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis", equation 4,
    which maximises the ratio. The inverse and `eps` are from the authors' code, with distances of the whole
    batch.

    >>> zeros, ones = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    >>> mode_seeking_loss(zeros, ones, torch.zeros(1, 8), torch.ones(1, 8) / 2).round(decimals=3)
    tensor(0.5000)
    """
    if not eps > 0:
        raise ArgumentError(f"mode_seeking_loss: eps must be above 0, got {eps}. Leave it out, or use 1e-5.")
    shapes = [tuple(each.shape) for each in (first, second, first_noise, second_noise)]
    if shapes[0] != shapes[1] or shapes[2] != shapes[3] or shapes[0][:1] != shapes[2][:1]:
        raise ShapeError(
            f"mode_seeking_loss: two images (b, c, h, w) and their two noises (b, n), got the shapes {shapes}. Compute "
            "both images with one generator, from the same sources."
        )
    images, noises = (
        rearrange(one.float() - other.float(), "b ... -> b (...)").abs().mean(dim=1)
        for one, other in ((first, second), (first_noise, second_noise))
    )
    return (1 / (images / noises + eps)).mean()


def logits_of(features: Features) -> Logits:
    """Return the logits from a discriminator's features: the last tensor, or the last of each scale."""
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
