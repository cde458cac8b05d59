"""The multi-scale discriminator of pix2pixHD (Wang et al. 2018)."""

from typing import cast

from torch import Tensor, nn

from imtrans.checks import at_least, check_bool
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.inputs import check_image
from imtrans.nn.layers import Act, Norm, act_from, downsample, norm_from
from imtrans.nn.patchgan import PatchDiscriminator
from imtrans.receptive_fields.trace import receptive_field

OWNER = "MultiscaleDiscriminator"


class MultiscaleDiscriminator(Pretrained):
    """Patch discriminators with the same architecture, and separate weights, on an image pyramid.

    ``scales[0]`` judges the full image, ``scales[1]`` the image at half the size, and so on. The defaults match the
    authors' code; the paper has three scales.

    Shape: ``(b, in_channels, h, w)`` -> for each scale ``(b, 1, h', w')``, raw logits, from the full image down.

    Args:
        in_channels: number of channels of source and target together.
        num_scales: number of discriminators.

    The other arguments are as in `imtrans.PatchDiscriminator`.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, a wrong number of channels, or an image too small for the smallest scale.

    Source: Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
    section 3.2, and the authors' code.

    >>> import torch
    >>> discriminator = MultiscaleDiscriminator(6, base_channels=8)
    >>> [tuple(logits.shape) for logits in discriminator(torch.zeros(1, 6, 256, 256))]
    [(1, 1, 35, 35), (1, 1, 19, 19)]
    >>> discriminator.receptive_field
    (70, 141)
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        num_scales: int = 2,
        base_channels: int = 64,
        n_layers: int = 3,
        norm: str | Norm = "instance",
        act: str | Act = "leaky_relu",
        padding: int = 2,
        spectral_norm: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = at_least(OWNER, "in_channels", in_channels, 1)
        at_least(OWNER, "num_scales", num_scales, 1, 8)
        at_least(OWNER, "base_channels", base_channels, 1)
        at_least(OWNER, "n_layers", n_layers, 1, 16)
        at_least(OWNER, "padding", padding, 0, 3)
        check_bool(OWNER, "spectral_norm", spectral_norm)
        check_bool(OWNER, "bias", bias, unset=True)
        make_norm, make_act = norm_from(OWNER, norm), act_from(OWNER, "act", act)
        self.scales = nn.ModuleList(
            PatchDiscriminator(
                in_channels, base_channels=base_channels, n_layers=n_layers, norm=make_norm, act=make_act,
                padding=padding, spectral_norm=spectral_norm, bias=bias,
            )
            for _ in range(num_scales)
        )  # fmt: skip
        self.halve = downsample()

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """Height and width of the patch that one logit judges, for each scale, in pixels of the full image."""
        paths = (nn.Sequential(*[self.halve] * level, scale.layers) for level, scale in enumerate(self._scales()))
        return tuple(cast(int, receptive_field(path, in_channels=self.in_channels).size) for path in paths)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [maps[-1] for maps in self.features(images)]

    def features(self, images: Tensor) -> list[list[Tensor]]:
        """Return the output of each layer for each scale; the logits are the last of each scale.

        Shape: ``(b, in_channels, h, w)`` -> for each scale and layer ``(b, channels, h', w')``.
        """
        check_image(OWNER, images, self.in_channels, self, conditional=True)
        pyramid = [images]
        while len(pyramid) < len(self.scales):
            pyramid.append(self.halve(pyramid[-1]))
        pairs = list(zip(self._scales(), pyramid, strict=True))
        for level, (scale, image) in enumerate(pairs):
            scale.check_size(f"{OWNER}, at 1/{2**level} of the size" if level else OWNER, image)
        return [scale.features(image) for scale, image in pairs]

    def _scales(self) -> list[PatchDiscriminator]:
        return [cast(PatchDiscriminator, scale) for scale in self.scales]
