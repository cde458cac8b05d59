"""Inpainting: pix2pix from a picture with holes to the whole picture."""

from typing import Any, cast

from torch import Tensor, nn

from imtrans.colours import RGBA
from imtrans.methods.pix2pix import Pix2Pix


class Inpainting(Pix2Pix):
    """pix2pix that fills holes: the losses see the generator's output in the holes, and the source around them.

    A sample is ``{"source": (4, h, w), "target": (3, h, w)}`` in [-1, 1], the source as `imtrans.colours.split_holes`
    gives it; see `DerivedPairs` with the source ``"holes"``. The generator's attribute `colours` becomes ``"rgba"`` and
    is saved with it, so that `imtrans.translate` and `imtrans.evaluate` keep the known pixels too: `translate` fills
    the transparent part of an RGBA picture.

    Args:
        generator: maps RGB and alpha ``(b, 4, h, w)`` to RGB ``(b, 3, h, w)``. Its output counts in the holes only.
        discriminator: of `Pix2Pix`; it sees 7 channels, or with ``conditional=False`` 3.
        l1_weight: weight of the L1 term, a mean over the whole picture. The default is ten times the one of `Pix2Pix`,
            because holes are about a tenth of the picture.
        **options: other keyword arguments of `Pix2Pix`.

    Raises:
        ArgumentError: a generator of imtrans with other channels, or as for `Pix2Pix`.

    Source: Pathak et al. 2016, "Context Encoders: Feature Learning by Inpainting" (holes and adversarial loss); Iizuka
    et al. 2017, "Globally and Locally Consistent Image Completion", section 3.4 (known pixels are restored).
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module | None, *, l1_weight: float = 1000.0, **options: Any
    ) -> None:
        super().__init__(generator, discriminator, l1_weight=l1_weight, **options)
        cast(Any, generator).colours = RGBA.name

    def translated(self, source: Tensor, *noise: Tensor) -> Tensor:
        """Return the source with the holes filled from the generator's output."""
        return RGBA.join(source, super().translated(source, *noise))
