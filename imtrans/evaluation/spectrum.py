"""Spectral energy of the grids that upsampling layers leave in images."""

from math import gcd

import torch
from torch import Tensor

from imtrans.errors import ShapeError

PERIODS = (2, 4, 8)  # pixels: of the last three layers that double height and width
FLOOR = 1e-8  # far below the rounding of 8-bit images, so that flat images have a finite ratio


def resampling_energy(images: Tensor) -> Tensor:
    """Return the energy of the patterns in each image that repeat every 2, 4 and 8 pixels.

    A layer that doubles height and width may treat even and odd pixels differently. Such a grid has its energy at the
    frequencies ``(i / 8, j / 8)``, and a shorter period at the part of them that repeats it. The energy is the sum of
    the power at these frequencies, averaged over channels. A Hann window keeps the borders of the image out of it.

    Shape: ``(b, c, h, w)`` in [-1, 1] -> ``(b, 3)``, double. Rows and columns beyond a multiple of 8 do not count.

    Raises:
        ShapeError: images below 16 pixels, or not ``b c h w``.

    Source: Odena et al. 2016, "Deconvolution and Checkerboard Artifacts".

    >>> stripes = torch.tensor([-1.0, 1.0]).repeat(1, 1, 16, 8)
    >>> resampling_energy(stripes).round(decimals=6).tolist()
    [[1.0, 0.0, 0.0]]
    """
    longest = PERIODS[-1]
    if images.ndim != 4 or min(images.shape[-2:]) < 2 * longest:
        raise ShapeError(
            f"resampling_energy: needs images (b, c, h, w) of at least {2 * longest} pixels, got shape "
            f"{tuple(images.shape)}."
        )
    # All other frequencies cancel in the mean of the tiles.
    tiles = images.double().unfold(2, longest, longest).unfold(3, longest, longest)
    rows, columns = (torch.hann_window(n + 2, periodic=False).to(tiles)[1:-1] for n in tiles.shape[2:4])
    window = rows[:, None] * columns / (rows.sum() * columns.sum())
    power = torch.fft.fft2(torch.einsum("b c m n h w, m n -> b c h w", tiles, window), norm="forward").abs().square()
    periods = torch.tensor([[longest // gcd(longest, i, j) for i in range(longest)] for j in range(longest)])
    return torch.stack(
        [power[..., (periods == period).to(power.device)].sum(dim=-1).mean(dim=1) for period in PERIODS], 1
    )


class Grid:
    """How strong the grids of upsampling are in images, relative to their targets; see `resampling_energy`.

    The result is the largest ratio over the three periods. Each is a ratio of geometric means over the images. 1 means
    no grid; blurred images are below 1.
    """

    def __init__(self) -> None:
        self._energies: list[Tensor] = []

    def add(self, fake: Tensor, target: Tensor) -> None:
        self._energies.append(torch.stack([resampling_energy(fake), resampling_energy(target)]))

    def result(self) -> dict[str, float]:
        fake, target = torch.cat(self._energies, dim=1).add(FLOOR).log().mean(dim=1)
        return {"grid": (fake - target).exp().max().item()}
