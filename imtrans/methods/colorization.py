"""Colorization: pix2pix from the lightness of a picture to its colours."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from imtrans.colours import LAB
from imtrans.methods.pix2pix import Pix2Pix


class Colorization(Pix2Pix):
    """The method of pix2pix, from lightness to the a and b of CIE Lab, that shows and compares pictures in RGB.

    A sample is ``{"source": (1, h, w), "target": (2, h, w)}`` in [-1, 1], as `LabImages` has them. The generator's
    `colours` become ``"lab"``, which is saved with it: `imtrans.translate` then makes coloured pictures of grey ones.

    Args:
        generator: maps lightness ``(b, 1, h, w)`` to colours ``(b, 2, h, w)``.
        discriminator: maps lightness and colours, concatenated to 3 channels (or the 2 of the colours alone, with
            ``conditional=False``), to logits; None for L1 only.
        **options: of `Pix2Pix`.

    Raises:
        ArgumentError: a generator of imtrans that has other channels, or as for `Pix2Pix`.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", section 4.2, and
    their code.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module | None, **options: Any) -> None:
        super().__init__(generator, discriminator, **options)
        cast(Any, generator).colours = LAB.name

    @torch.no_grad()
    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pictures of a sample row, each ``(b, 3, h, w)``: the grey one, fake and, where there is one, target."""
        columns = super().preview(batch)
        lightness = columns["source"]
        grey = torch.zeros_like(lightness).expand(-1, 2, -1, -1)
        return {name: LAB.join(lightness, ab) for name, ab in {**columns, "source": grey}.items()}
