"""The residual generator of CycleGAN (Zhu et al. 2017); also the global generator of pix2pixHD."""

from typing import Any, ClassVar

from torch import Tensor, nn

from imtrans.checks import at_least, check_bool, in_range, one_of
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.blocks import ConvNormAct, ResidualBlock, UpBlock
from imtrans.nn.init import init_weights
from imtrans.nn.inputs import check_image, pad_to_fit
from imtrans.nn.layers import ODD_SIZES, PADDING_MODES, UPSAMPLE, Act, Norm, act_from, has_shift, norm_from

OWNER = "ResnetGenerator"


class ResnetGenerator(Pretrained):
    """The generator of CycleGAN: downsampling, residual blocks, upsampling, between 7x7 convolutions.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1].

    Args:
        in_channels: number of source channels.
        out_channels: number of output channels.
        base_channels: width at full resolution; each downsampling doubles it.
        num_blocks: number of residual blocks.
        num_downs: number of downsamplings, each by 2.
        norm: ``"batch" | "instance" | "group" | "keras_batch" | "none"``, or a callable ``channels -> module``.
        act: a name, or a callable ``() -> module``.
        dropout: dropout probability in the residual blocks.
        padding_mode: of the 7x7 convolutions and the residual blocks: ``"zeros" | "reflect" | "replicate" |
            "circular"``. Downsampling pads with zeros.
        upsample: ``"deconv"`` (3x3) ``| "nearest" | "bilinear" | "shuffle"``.
        bias: whether convolutions have a bias; None: only if the norm has no learned shift. The output convolution
            always has one.
        out_act: output activation: a name or a callable.
        odd_sizes: for an image whose size is not a multiple of ``2 ** num_downs``: ``"pad"`` replicates its edge
            and crops the output back, ``"error"`` raises.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, a wrong number of channels, or with ``odd_sizes="error"`` a size that does not fit.

    Source: Johnson et al. 2016; Zhu et al. 2017, appendix 7.2.

    >>> import torch
    >>> generator = ResnetGenerator(base_channels=4, num_blocks=2)
    >>> generator(torch.zeros(1, 3, 50, 33)).shape
    torch.Size([1, 3, 50, 33])
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "junyanz/resnet_9blocks": {"num_blocks": 9, "norm": "instance"},
        "junyanz/resnet_6blocks": {"num_blocks": 6, "norm": "instance"},
        "pix2pixHD/global": {"num_blocks": 9, "num_downs": 4, "norm": "instance"},
    }

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        num_blocks: int = 9,
        num_downs: int = 2,
        norm: str | Norm = "instance",
        act: str | Act = "relu",
        dropout: float = 0.0,
        padding_mode: str = "reflect",
        upsample: str = "deconv",
        bias: bool | None = None,
        out_act: str | Act = "tanh",
        odd_sizes: str = "pad",
    ) -> None:
        super().__init__()
        self.in_channels = at_least(OWNER, "in_channels", in_channels, 1)
        self.out_channels = at_least(OWNER, "out_channels", out_channels, 1)
        self.num_downs = at_least(OWNER, "num_downs", num_downs, 0, 16)
        check_bool(OWNER, "bias", bias, unset=True)
        self.size_multiple = 2**self.num_downs
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ODD_SIZES)
        at_least(OWNER, "base_channels", base_channels, 1)
        at_least(OWNER, "num_blocks", num_blocks, 0, 200)
        in_range(OWNER, "dropout", dropout, 0.0, 1.0)
        one_of(OWNER, "padding_mode", padding_mode, PADDING_MODES)
        one_of(OWNER, "upsample", upsample, UPSAMPLE)
        make_norm, make_act = norm_from(OWNER, norm), act_from(OWNER, "act", act)
        widths = [base_channels * 2**i for i in range(num_downs + 1)]
        biased = not has_shift(make_norm(widths[-1])) if bias is None else bias
        common: dict[str, Any] = {"norm": make_norm, "act": make_act, "bias": biased}
        padded = {**common, "padding_mode": padding_mode}
        self.stem = ConvNormAct(in_channels, base_channels, kernel_size=7, **padded)
        self.downs = nn.Sequential(*(ConvNormAct(w, 2 * w, kernel_size=3, stride=2, **common) for w in widths[:-1]))
        self.blocks = nn.Sequential(*(ResidualBlock(widths[-1], dropout=dropout, **padded) for _ in range(num_blocks)))
        self.ups = nn.Sequential(
            *(UpBlock(2 * w, w, upsample=upsample, kernel_size=3, **common) for w in reversed(widths[:-1]))
        )
        self.head = ConvNormAct(
            base_channels, out_channels, kernel_size=7, padding_mode=padding_mode,
            norm=nn.Identity, act=act_from(OWNER, "out_act", out_act), bias=True,
        )  # fmt: skip
        init_weights(self)

    def forward(self, source: Tensor) -> Tensor:
        check_image(OWNER, source, self.in_channels, self)
        # Reflection padding needs 4 pixels at full resolution (by 3) and 2 at the lowest (by 1).
        x = pad_to_fit(OWNER, source, self.size_multiple, max(4, 2 * self.size_multiple), self.odd_sizes)
        height, width = source.shape[-2:]
        return self.head(self.ups(self.blocks(self.downs(self.stem(x)))))[..., :height, :width]
