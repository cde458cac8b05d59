"""The U-Net generator, every level of which is a value."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from imtrans.attention import SelfAttention
from imtrans.blocks import DownBlock, UpBlock
from imtrans.errors import ArgumentError, at_least, flag, in_range, one_of
from imtrans.init import init_weights
from imtrans.layers import (
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
from imtrans.pretrained import Pretrained
from imtrans.receptive_field import receptive_field
from imtrans.skips import SKIPS, Skip

OWNER = "UNetGenerator"
MAX_DEPTH = 16  # of an image of 65536 pixels, one would be left


class UNetGenerator(Pretrained):
    """The generator of pix2pix: an encoder-decoder with skips between the levels of equal size.

    Encoder level i halves the image and has ``channels[i]`` channels; the decoder doubles it back. There is no
    norm on the first convolution, on the bottleneck and on the output (a batch norm of one value would erase
    the bottleneck).

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1].

    Args:
        in_channels: of the source.
        out_channels: of the output.
        base_channels: width of the outermost level; it doubles level by level, up to 8 times.
        depth: number of levels, each of which halves the image.
        channels: the width of each encoder level from the outermost inward, instead of the two above.
        skips: ``"concat" | "add" | "gate" | "none"``, or a callable ``(channels, skip_channels) -> merge
            module`` (see `imtrans.blocks.UpBlock`), or a sequence of ``depth - 1`` of these from the outermost
            level inward.
        norm: ``"batch" | "instance" | "group" | "none"``, or a callable ``channels -> module``.
        act: the encoder's activation: a name (``"leaky_relu"`` has slope 0.2), or a callable ``() -> module``.
        decoder_act: the decoder's, and the bottleneck's.
        dropout: probability for each decoder level, from the innermost outward; levels beyond the sequence have
            none, entries beyond the levels are cut.
        downsample: ``"conv" | "pool" | "blur"``, see `imtrans.blocks.DownBlock`.
        upsample: ``"deconv" | "nearest" | "bilinear" | "shuffle"``, see `imtrans.layers.upsample_conv`.
        num_convs: convolutions a level; with 2 and ``downsample="pool"``, the levels of the 2015 U-Net.
        attention: encoder levels (0 is the outermost) whose output passes through self-attention.
        bias: of every convolution; if None, convolutions have one where the norm has no shift of its own. The
            output convolution always has one.
        out_act: the last activation: a name or a callable.
        odd_sizes: what happens to an image whose size is no multiple of ``2 ** depth``: ``"pad"`` extends it
            by its edge pixels and crops the output back, ``"error"`` raises.

    Raises:
        ArgumentError: a value that is not allowed, `channels` that contradicts `depth` or `base_channels`.
        ShapeError: in ``forward``, an image of another number of channels, or of a size that does not fit with
            ``odd_sizes="error"``.

    Source: Isola et al. 2017, section 6.1.1; Ronneberger et al. 2015.

    >>> import torch
    >>> generator = UNetGenerator(base_channels=8, depth=5)
    >>> generator(torch.zeros(1, 3, 100, 70)).shape
    torch.Size([1, 3, 100, 70])
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "phillipi/unet_256": {"depth": 8, "bias": True},
        "phillipi/unet_128": {"depth": 7, "bias": True},
        "junyanz/unet_256": {"depth": 8, "dropout": (0.0, 0.5, 0.5, 0.5)},
        "junyanz/unet_128": {"depth": 7, "dropout": (0.0, 0.5, 0.5)},
    }

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        depth: int = 8,
        channels: Sequence[int] | None = None,
        skips: str | Skip | Sequence[str | Skip] = "concat",
        norm: str | Norm = "batch",
        act: str | Act = "leaky_relu",
        decoder_act: str | Act = "relu",
        dropout: Sequence[float] = (0.5, 0.5, 0.5),
        downsample: str = "conv",
        upsample: str = "deconv",
        num_convs: int = 1,
        attention: Sequence[int] = (),
        bias: bool | None = None,
        out_act: str | Act = "tanh",
        odd_sizes: str = "pad",
    ) -> None:
        super().__init__()
        self.in_channels = at_least(OWNER, "in_channels", in_channels, 1)
        self.out_channels = at_least(OWNER, "out_channels", out_channels, 1)
        self.channels = _widths(base_channels, depth, channels)
        self.depth = len(self.channels)
        flag(OWNER, "bias", bias, unset=True)
        self.size_multiple = 2**self.depth
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ("pad", "error"))
        one_of(OWNER, "downsample", downsample, DOWNSAMPLE)
        one_of(OWNER, "upsample", upsample, UPSAMPLE)
        at_least(OWNER, "num_convs", num_convs, 1, 16)
        make_norm, make_act = norm_from(OWNER, norm), act_from(OWNER, "act", act)
        make_decoder_act = act_from(OWNER, "decoder_act", decoder_act)
        biased = not has_shift(make_norm(self.channels[-1])) if bias is None else bias
        self.encoder = _encoder(
            (in_channels, *self.channels), make_norm, make_act, make_decoder_act,
            downsample=downsample, num_convs=num_convs, bias=biased,
        )  # fmt: skip
        self.attention = nn.ModuleDict({
            str(level): SelfAttention(self.channels[level])
            for level in _attention_levels(attention, self.depth)
        })  # fmt: skip
        self.decoder = _decoder(
            self.channels, _skips(skips, self.depth), _dropouts(dropout), make_norm, make_decoder_act,
            upsample=upsample, num_convs=num_convs, bias=biased,
        )  # fmt: skip
        last = cast(UpBlock, self.decoder[-1]).out_channels if len(self.decoder) else self.channels[0]
        self.head = upsample_conv(last, out_channels, upsample=upsample)
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
            lines.append(f"{level:>5}  {'1/' + str(2 ** (level + 1)):<5} {width:>8}  {skip:<7} {field:>15}")
        return "\n".join(lines)

    def _skip_name(self, level: int) -> str:
        if level == self.depth - 1:
            return "-"
        merge = cast(UpBlock, self.decoder[self.depth - 2 - level]).merge
        names = {kind: name for name, kind in SKIPS.items()}
        return names.get(cast(Skip, type(merge)), type(merge).__name__)


def _widths(base_channels: int, depth: int, channels: Sequence[int] | None) -> tuple[int, ...]:
    at_least(OWNER, "base_channels", base_channels, 1)
    at_least(OWNER, "depth", depth, 1, MAX_DEPTH)
    if channels is None:
        return tuple(base_channels * min(2**level, 8) for level in range(depth))
    if not isinstance(channels, (list, tuple)) or not 1 <= len(channels) <= MAX_DEPTH:
        raise ArgumentError(f"{OWNER}: channels must be a sequence of widths, one a level, got {channels!r}.")
    for width in channels:
        at_least(OWNER, "each of channels", width, 1)
    # 8 and 64 are the defaults: whoever gives `channels` has not chosen them.
    if depth not in (8, len(channels)) or base_channels not in (64, channels[0]):
        raise ArgumentError(
            f"{OWNER}: channels={tuple(channels)} gives depth {len(channels)} and the outermost width "
            f"{channels[0]}, but depth={depth} and base_channels={base_channels} were given too. "
            "Give either channels or the other two."
        )
    return tuple(channels)


def _skips(skips: str | Skip | Sequence[str | Skip], depth: int) -> list[Skip]:
    if isinstance(skips, str):
        one_of(OWNER, "skips", skips, SKIPS)
    elif not callable(skips) and not isinstance(skips, (list, tuple)):
        raise ArgumentError(
            f"{OWNER}: skips must be a name, a callable, or a sequence of them, one a skip, got {skips!r}."
        )
    each = list(skips) if isinstance(skips, (list, tuple)) else [skips] * (depth - 1)
    if len(each) != depth - 1:
        raise ArgumentError(
            f"{OWNER}: skips has {len(each)} entries, a U-Net of depth {depth} has {depth - 1} skips, "
            "counted from the outermost level inward. Give one name for all, or one entry for each."
        )
    return [s if callable(s) else SKIPS[one_of(OWNER, "skips", s, SKIPS)] for s in each]


def _dropouts(dropout: Sequence[float]) -> list[float]:
    if not isinstance(dropout, (list, tuple)):
        raise ArgumentError(
            f"{OWNER}: dropout must be a sequence of probabilities, one a decoder level from the innermost "
            f"outward, got {dropout!r}. For example (0.5, 0.5, 0.5), or () for none."
        )
    return [in_range(OWNER, "each of dropout", p, 0.0, 1.0) for p in dropout]


def _attention_levels(attention: Sequence[int], depth: int) -> list[int]:
    if not isinstance(attention, (list, tuple)):
        raise ArgumentError(f"{OWNER}: attention must be a sequence of encoder levels, got {attention!r}.")
    levels = sorted({at_least(OWNER, "each of attention", level, 0) for level in attention})
    if levels and levels[-1] >= depth:
        raise ArgumentError(
            f"{OWNER}: attention names level {levels[-1]}, the innermost of depth {depth} is {depth - 1}."
        )
    return levels


def _encoder(widths: tuple[int, ...], norm: Norm, act: Act, innermost_act: Act, **settings: Any) -> nn.Sequential:
    innermost = len(widths) - 2
    return nn.Sequential(
        *(
            DownBlock(
                widths[level],
                widths[level + 1],
                norm=nn.Identity if level in (0, innermost) else norm,
                act=innermost_act if level == innermost else act,
                **settings,
            )
            for level in range(innermost + 1)
        )
    )


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
