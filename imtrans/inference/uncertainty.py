"""Uncertainty of a translation: mean and standard deviation of several outputs for one source."""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from imtrans.checks import in_range
from imtrans.data.codec import Picture, decode
from imtrans.errors import ArgumentError, ShapeError
from imtrans.inference.translate import check_generator, translate
from imtrans.modes import unwrap
from imtrans.nn.noise import check_samples, noise_channels

_HEAT = ((0, 0, 0), (74, 20, 104), (190, 50, 80), (249, 142, 9), (252, 255, 200))  # evenly spaced, by lightness


class Uncertainty(NamedTuple):
    """Mean and standard deviation of the outputs for one source; see `uncertainty`."""

    mean: Any
    std: Tensor


def uncertainty(
    generator: nn.Module,
    image: Picture,
    *,
    instances: Picture | None = None,
    samples: int = 16,
    seed: int | None = 0,
    mode: str | None = None,
    tile: int | None = None,
    precision: str | None = None,
) -> Uncertainty:
    """Translate an image several times, and return the mean and the standard deviation of each pixel.

    The outputs differ by the noise of a generator with `noise_channels`, else by dropout (Monte-Carlo dropout). The
    standard deviation shows where the generator has no single answer. It does not show where the answer is wrong.

    Args:
        generator: as for `imtrans.translate`, with noise or dropout.
        image: a path, a PIL image, an array or a tensor, as for `imtrans.translate`.
        instances: as for `imtrans.translate`.
        samples: number of outputs, at least 2.
        seed: seed of noise and dropout; None draws from PyTorch's global generator.
        mode: see `imtrans.modes.running_as`; None for the generator's own with noise, and for ``"paper"``, the mode
            with dropout, without.
        tile: as for `imtrans.translate`.
        precision: as for `imtrans.translate`.

    Returns:
        The mean, in the type that `imtrans.translate` returns, and the standard deviation, a float tensor
        ``(1, h, w)``, for a batch ``(b, 1, h, w)``. It is the root mean square over the channels, for values in
        [-1, 1]: at most 1. Outputs of 8 bits are rounded before.

    Raises:
        ArgumentError: `samples` below 2, a generator whose outputs are equal, a list, or as for `imtrans.translate`.
        ShapeError, DataError: as for `imtrans.translate`.

    Source: Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation", section 4.

    >>> from imtrans import UNetGenerator
    >>> generator = UNetGenerator(base_channels=4, depth=4)  # with dropout
    >>> mean, std = uncertainty(generator, torch.zeros(3, 50, 40), samples=4)
    >>> mean.shape, std.shape
    (torch.Size([3, 50, 40]), torch.Size([1, 50, 40]))
    """
    if isinstance(image, (list, tuple)):
        raise ArgumentError("uncertainty: takes one image, got a list. Call it for each image.")
    default = mode is None and isinstance(generator, nn.Module) and not noise_channels(generator)
    _, mode = check_generator("uncertainty", generator, "paper" if default else mode, precision)
    check_samples("uncertainty", generator, mode, samples, minimum=2)
    outputs = translate(
        generator, image, instances=instances, mode=mode, tile=tile, precision=precision, samples=samples, seed=seed
    )
    if isinstance(outputs[0], Tensor):
        values = torch.stack(outputs).float()
        mean, is_batch = values.mean(dim=0).to(outputs[0]), values.ndim == 5
        values = values if is_batch else values[:, None]
    else:
        value_range = getattr(unwrap(generator), "value_range", None)
        decoded = [decode("uncertainty", output, _channels(output), value_range) for output in outputs]
        values = torch.stack([each.tensor for each in decoded])
        mean, is_batch = decoded[0].encode(values.mean(dim=0)), getattr(outputs[0], "ndim", 3) == 4
    std = values.std(dim=0, correction=0).square().mean(dim=1, keepdim=True).sqrt()
    return Uncertainty(mean, std if is_batch else std[0])


def uncertainty_map(std: Tensor, *, top: float = 0.5) -> Image.Image:
    """Draw the standard deviation of `uncertainty` in colours: black for 0, over purple, red and orange, to white.

    Args:
        std: ``(1, h, w)``.
        top: value of the last colour, and of all above it. Maps with one `top` can be compared.

    Raises:
        ArgumentError: `top` is not a positive number.
        ShapeError: `std` of another shape.

    >>> uncertainty_map(torch.zeros(1, 2, 3)).getpixel((0, 0))
    (0, 0, 0)
    """
    in_range("uncertainty_map", "top", top, 1e-6)
    if std.ndim != 3 or len(std) != 1:
        raise ShapeError(f"uncertainty_map: expects (1, h, w), got {tuple(std.shape)}. Give one image of a batch.")
    colours = torch.tensor(_HEAT, dtype=torch.float32)
    position = (std[0].float().cpu() / top).clamp(0, 1) * (len(colours) - 1)
    lower = position.long().clamp(max=len(colours) - 2)
    mixed = torch.lerp(colours[lower], colours[lower + 1], (position - lower)[..., None])
    return Image.fromarray(mixed.round().to(torch.uint8).numpy())


def _channels(output: Image.Image | np.ndarray[Any, Any]) -> int:
    if isinstance(output, Image.Image):
        return len(output.getbands())
    return output.shape[-1] if output.ndim > 2 else 1
