"""Colorization: pix2pix from lightness to colours."""

from typing import Any, cast

from torch import nn

from imtrans.colours import LAB
from imtrans.methods.pix2pix import Pix2Pix


class Colorization(Pix2Pix):
    """pix2pix from lightness to the channels a and b of CIE Lab. Samples and metrics are of RGB pictures.

    A sample is ``{"source": (1, h, w), "target": (2, h, w)}`` in [-1, 1], as in `LabImages`. The generator's attribute
    `colours` becomes ``"lab"`` and is saved with it, so that `imtrans.translate` turns grey pictures into RGB.

    Args:
        generator: maps lightness ``(b, 1, h, w)`` to colours ``(b, 2, h, w)``.
        discriminator: of `Pix2Pix`; it sees 3 channels, or with ``conditional=False`` the 2 channels of the colours.
        **options: keyword arguments of `Pix2Pix`.

    Raises:
        ArgumentError: a generator of imtrans with other channels, or as for `Pix2Pix`.

    Source: Isola et al. 2017, section 4.2, and their code.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module | None, **options: Any) -> None:
        super().__init__(generator, discriminator, **options)
        cast(Any, generator).colours = LAB.name
