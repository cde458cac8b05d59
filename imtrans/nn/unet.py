"""The U-Net generator, every level of which is a value."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from imtrans.checks import at_least, check_bool, one_of
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.attention import SelfAttention
from imtrans.nn.blocks import ConvNormAct, DownBlock, UpBlock
from imtrans.nn.init import init_weights
from imtrans.nn.layers import (
    DOWNSAMPLE,
    UPSAMPLE,
    Act,
    Norm,
    act_from,
    check_image,
    has_shift,
    norm_from,
    pad_to_fit,
    upsample_conv,
)
from imtrans.nn.skips import SKIPS, Skip
from imtrans.nn.unet_levels import attention_levels, check_deconv, level_dropouts, level_skips, level_widths
from imtrans.receptive_fields.trace import receptive_field

OWNER = "UNetGenerator"


class UNetGenerator(Pretrained):
    """The generator of pix2pix: an encoder-decoder with skips between the levels of equal size.

    Encoder level i halves the image and has ``channels[i]`` channels; the decoder doubles it back. There is no
    norm on the first convolution, on the bottleneck and on the output (a batch norm of one value would erase
    the bottleneck).

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1].

    Args:
        in_channels: of the source.
        out_channels: of the output.
        base_channels: width of the outermost level; it doubles level by level, up to `width_cap` times.
        depth: number of levels, each of which halves the image.
        width_cap: how many times wider than the outermost level the others are at most.
        channels: the width of each encoder level from the outermost inward, instead of the three above.
        skips: ``"concat" | "add" | "gate" | "none"``, or a callable ``(channels, skip_channels) -> merge
            module`` (see `imtrans.nn.blocks.UpBlock`), or a sequence of ``depth - 1`` of these from the outermost
            level inward.
        norm: ``"batch" | "instance" | "group" | "none"``, or a callable ``channels -> module``.
        act: the encoder's activation: a name (``"leaky_relu"`` has slope 0.2), or a callable ``() -> module``.
        decoder_act: the decoder's, and the bottleneck's.
        dropout: probability for each decoder level, from the innermost outward; levels beyond the sequence have
            none, entries beyond the levels are cut.
        downsample: ``"conv" | "pool" | "blur"``, see `imtrans.nn.blocks.DownBlock`.
        upsample: ``"deconv" | "nearest" | "bilinear" | "shuffle"``, see `imtrans.nn.layers.upsample_conv`.
        num_convs: convolutions a level; 2 in the 2015 U-Net.
        stem: whether the outermost level works at full resolution: 3x3 convolutions, none of which halves, and a
            1x1 convolution for the output. Level i then halves i times, not ``i + 1`` times.
        deconv_size: height and width of the kernel of ``upsample="deconv"``; 2 in the 2015 U-Net.
        attention: encoder levels (0 is the outermost) whose output passes through self-attention.
        bias: of every convolution; if None, convolutions have one where the norm has no shift of its own. The
            output convolution always has one.
        out_act: the last activation: a name or a callable.
        odd_sizes: what happens to an image whose size the levels cannot halve (`size_multiple`): ``"pad"`` extends
            it by its edge pixels and crops the output back, ``"error"`` raises.

    Raises:
        ArgumentError: a value that is not allowed, `channels` that contradicts `depth` or `base_channels`.
        ShapeError: in ``forward``, an image of another number of channels, or of a size that does not fit with
            ``odd_sizes="error"``.

    The preset ``"unet_2015"`` is figure 1 of Ronneberger et al., with padded convolutions, so that the output is as
    large as the input; it gives logits, without an activation.

    Source: Isola et al. 2017, section 6.1.1; Ronneberger et al. 2015, "U-Net".

    >>> import torch
    >>> generator = UNetGenerator(base_channels=8, depth=5)
    >>> generator(torch.zeros(1, 3, 100, 70)).shape
    torch.Size([1, 3, 100, 70])
    >>> UNetGenerator.preset("unet_2015", 1, 2).num_parameters()
    31030658
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "phillipi/unet_256": {"depth": 8, "bias": True},
        "phillipi/unet_128": {"depth": 7, "bias": True},
        "junyanz/unet_256": {"depth": 8, "dropout": (0.0, 0.5, 0.5, 0.5)},
        "junyanz/unet_128": {"depth": 7, "dropout": (0.0, 0.5, 0.5)},
        "unet_2015": {
            "depth": 5,
            "width_cap": 16,
            "stem": True,
            "num_convs": 2,
            "downsample": "pool",
            "deconv_size": 2,
            "norm": "none",
            "act": "relu",
            "dropout": (),
            "bias": True,
            "out_act": "none",
        },
    }

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        depth: int = 8,
        width_cap: int = 8,
        channels: Sequence[int] | None = None,
        skips: str | Skip | Sequence[str | Skip] = "concat",
        norm: str | Norm = "batch",
        act: str | Act = "leaky_relu",
        decoder_act: str | Act = "relu",
        dropout: Sequence[float] = (0.5, 0.5, 0.5),
        downsample: str = "conv",
        upsample: str = "deconv",
        num_convs: int = 1,
        stem: bool = False,
        deconv_size: int = 4,
        attention: Sequence[int] = (),
        bias: bool | None = None,
        out_act: str | Act = "tanh",
        odd_sizes: str = "pad",
    ) -> None:
        super().__init__()
        self.in_channels = at_least(OWNER, "in_channels", in_channels, 1)
        self.out_channels = at_least(OWNER, "out_channels", out_channels, 1)
        self.channels = level_widths(OWNER, base_channels, depth, width_cap, channels)
        self.depth = len(self.channels)
        check_bool(OWNER, "bias", bias, unset=True)
        check_bool(OWNER, "stem", stem)
        self._stem = stem
        self.size_multiple = 2 ** (self.depth - stem)
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ("pad", "error"))
        one_of(OWNER, "downsample", downsample, DOWNSAMPLE)
        one_of(OWNER, "upsample", upsample, UPSAMPLE)
        at_least(OWNER, "num_convs", num_convs, 1, 16)
        check_deconv(OWNER, deconv_size, upsample)
        make_norm, make_act = norm_from(OWNER, norm), act_from(OWNER, "act", act)
        make_decoder_act = act_from(OWNER, "decoder_act", decoder_act)
        biased = not has_shift(make_norm(self.channels[-1])) if bias is None else bias
        self.encoder = _encoder(
            (in_channels, *self.channels), make_norm, make_act, make_decoder_act,
            stem=stem, downsample=downsample, num_convs=num_convs, bias=biased,
        )  # fmt: skip
        self.attention = nn.ModuleDict({
            str(level): SelfAttention(self.channels[level])
            for level in attention_levels(OWNER, attention, self.depth)
        })  # fmt: skip
        self.decoder = _decoder(
            self.channels, level_skips(OWNER, skips, self.depth), level_dropouts(OWNER, dropout),
            make_norm, make_decoder_act,
            upsample=upsample, kernel_size=deconv_size, num_convs=num_convs, bias=biased,
        )  # fmt: skip
        last = cast(UpBlock, self.decoder[-1]).out_channels if len(self.decoder) else self.channels[0]
        self.head: nn.Module = (
            nn.Conv2d(last, out_channels, 1)
            if stem
            else upsample_conv(last, out_channels, upsample=upsample, kernel_size=deconv_size)
        )
        self.out_act = act_from(OWNER, "out_act", out_act)()
        init_weights(self)

    def forward(self, source: Tensor) -> Tensor:
        check_image(OWNER, source, self.in_channels)
        x = pad_to_fit(OWNER, source, self.size_multiple, self.size_multiple, self.odd_sizes)
        features = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if str(level) in self.attention:
                x = self.attention[str(level)](x)
            features.append(x)
        for block, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = block(x, skip)
        height, width = source.shape[-2:]
        return self.out_act(self.head(x))[..., :height, :width]

    def summary(self) -> str:
        """A table of the levels: how far each is reduced, its channels, its skip, what one of its pixels sees.

        >>> print(UNetGenerator(base_channels=8, depth=3).summary())
        UNetGenerator: 3 -> 3 channels, 23,763 parameters
        level  size  channels  skip    receptive field
            0  1/2          8  concat                4
            1  1/4         16  concat               10
            2  1/8         32  -                    22
        """
        parameters = sum(p.numel() for p in self.parameters())
        lines = [
            f"{OWNER}: {self.in_channels} -> {self.out_channels} channels, {parameters:,} parameters",
            f"{'level':>5}  {'size':<5} {'channels':>8}  {'skip':<7} {'receptive field':>15}",
        ]
        for level, width in enumerate(self.channels):
            skip = self._skip_name(level)
            sees = receptive_field(self.encoder[: level + 1], in_channels=self.in_channels).size
            field = "whole image" if any(int(at) <= level for at in self.attention) else str(sees)
            reduced = f"1/{2 ** (level + (not self._stem))}"
            lines.append(f"{level:>5}  {reduced:<5} {width:>8}  {skip:<7} {field:>15}")
        return "\n".join(lines)

    def _skip_name(self, level: int) -> str:
        if level == self.depth - 1:
            return "-"
        merge = cast(UpBlock, self.decoder[self.depth - 2 - level]).merge
        names = {kind: name for name, kind in SKIPS.items()}
        return names.get(cast(Skip, type(merge)), type(merge).__name__)


def _encoder(
    widths: tuple[int, ...], norm: Norm, act: Act, innermost_act: Act, *, stem: bool, **settings: Any
) -> nn.Sequential:
    innermost = len(widths) - 2
    levels: list[nn.Module] = []
    for level in range(innermost + 1):
        make = _full_resolution if stem and level == 0 else DownBlock
        levels.append(
            make(
                widths[level],
                widths[level + 1],
                norm=nn.Identity if level in (0, innermost) else norm,
                act=innermost_act if level == innermost else act,
                **settings,
            )
        )
    return nn.Sequential(*levels)


def _full_resolution(
    in_channels: int, out_channels: int, *, downsample: str, num_convs: int, **settings: Any
) -> nn.Sequential:
    """The level of a `stem`; `downsample` is the others'."""
    widths = [in_channels, *[out_channels] * num_convs]
    return nn.Sequential(*(ConvNormAct(widths[i], widths[i + 1], **settings) for i in range(num_convs)))


def _decoder(
    channels: tuple[int, ...], skips: list[Skip], dropouts: list[float], norm: Norm, act: Act, **settings: Any
) -> nn.ModuleList:
    blocks = nn.ModuleList()
    width = channels[-1]
    for from_innermost, level in enumerate(reversed(range(len(channels) - 1))):
        block = UpBlock(
            width,
            channels[level],
            skip_channels=channels[level],
            skip=skips[level],
            norm=norm,
            act=act,
            dropout=dropouts[from_innermost] if from_innermost < len(dropouts) else 0.0,
            **settings,
        )
        width = block.out_channels
        blocks.append(block)
    return blocks
