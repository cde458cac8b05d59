"""The U-Net generator of pix2pix (Isola et al. 2017) and the 2015 U-Net (Ronneberger et al.)."""

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn

from imtrans.checks import at_least, check_bool, in_range, one_of
from imtrans.errors import ArgumentError, counted
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.attention import SelfAttention
from imtrans.nn.blocks import DownBlock, UpBlock, conv_stack
from imtrans.nn.init import init_weights
from imtrans.nn.inputs import check_image, check_norm_values, pad_to_fit, round_up_to_multiple
from imtrans.nn.layers import (
    DOWNSAMPLE,
    ODD_SIZES,
    UPSAMPLE,
    Act,
    Norm,
    act_from,
    check_no_instance,
    has_shift,
    norm_from,
    upsample_conv,
)
from imtrans.nn.noise import append_noise, check_noise
from imtrans.nn.skips import SKIPS, Skip
from imtrans.receptive_fields.trace import receptive_field

OWNER = "UNetGenerator"
NOISE_AT = ("input", "bottleneck")
MAX_DEPTH = 16  # halves 65536 pixels to one
LARGE = 100 * 100  # pixels of a padded image from which padding is worth a warning
_WARNED: WeakSet[nn.Module] = WeakSet()


class UNetGenerator(Pretrained):
    """The generator of pix2pix: an encoder-decoder with skips between levels of equal size.

    Encoder level i halves the image and has ``channels[i]`` channels; the decoder doubles it back. The first
    convolution and the output have no norm, and by default the bottleneck has none (batch norm would zero a bottleneck
    of one value).

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1]. With noise
    ``(b, in_channels, h, w), (b, noise_channels) -> (b, out_channels, h, w)``. Without it, ``forward(source)`` draws
    noise from N(0, 1), with PyTorch's global generator of the device, in training and in evaluation.

    Args:
        in_channels: number of source channels.
        out_channels: number of output channels.
        base_channels: width of the outermost level; each further level doubles it, up to `width_cap` times.
        depth: number of levels; each halves the image.
        width_cap: largest width, as a multiple of `base_channels`.
        channels: width of each encoder level from the outermost inward; replaces the three arguments above.
        skips: ``"concat" | "add" | "gate" | "none"``, or a callable ``(channels, skip_channels) -> merge
            module`` (see `imtrans.nn.blocks.UpBlock`), or a sequence of ``depth - 1`` of these from the outermost
            level inward.
        norm: ``"batch" | "instance" | "group" | "keras_batch" | "none"``, or a callable ``channels -> module``; see
            `imtrans.nn.layers.KerasBatchNorm`.
        bottleneck_norm: whether the innermost encoder level has a norm.
        act: activation of the encoder: a name (``"leaky_relu"`` has slope 0.2, ``"leaky_relu_0.3"`` slope 0.3), or a
            callable ``() -> module``.
        decoder_act: activation of the decoder and the bottleneck.
        act_before_merge: whether each decoder level applies its activation before it merges the skip, which then keeps
            its negative values. The bottleneck has the activation of the encoder.
        dropout: probability for each decoder level from the innermost outward; levels beyond the sequence have
            none, entries beyond the levels are ignored.
        downsample: ``"conv" | "pool" | "blur"``, see `imtrans.nn.blocks.DownBlock`.
        upsample: ``"deconv" | "nearest" | "bilinear" | "shuffle"``, see `imtrans.nn.layers.upsample_conv`.
        num_convs: convolutions per level; 2 in the 2015 U-Net.
        stem: whether the outermost level works at full resolution: 3x3 convolutions without downsampling, and a
            1x1 convolution for the output. Level i then halves the image i times, not ``i + 1`` times.
        deconv_size: kernel size of ``upsample="deconv"``; 2 in the 2015 U-Net.
        attention: encoder levels (0 is the outermost) followed by self-attention.
        bias: whether convolutions have a bias; None: only if the norm has no learned shift. The output convolution
            always has one.
        out_act: output activation: a name or a callable.
        odd_sizes: for an image whose size is not a multiple of `size_multiple`: ``"pad"`` replicates its edge
            and crops the output back, ``"error"`` raises. In training, padding that more than doubles the pixels
            warns once, with the depth that fits.
        noise_channels: length n of the noise vector z of each image; 0 for a network without noise.
        noise_at: where z becomes n further channels, constant over the image: ``"input"``, with the source, or
            ``"bottleneck"``, with the innermost features.

    Raises:
        ArgumentError: a value that is not allowed, or `channels` that contradict `depth` or `base_channels`; in
            ``forward``, noise for a network without noise.
        ShapeError: in ``forward``, a wrong number of channels, noise of another shape, a norm at the bottleneck that
            would see a single value, or with ``odd_sizes="error"`` a size that does not fit.

    The preset ``"unet_2015"`` is figure 1 of Ronneberger et al. with padded convolutions, so that the output has the
    size of the input. It returns logits, without an output activation. ``"tensorflow/unet"`` is the generator of the
    pix2pix tutorial of TensorFlow.

    Source: Isola et al. 2017, section 6.1.1; Ronneberger et al. 2015, "U-Net"; for the noise, Zhu et al. 2017, "Toward
    Multimodal Image-to-Image Translation", figure 3.

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
        "tensorflow/unet": {
            "norm": "keras_batch",
            "bottleneck_norm": True,
            "act": "leaky_relu_0.3",
            "act_before_merge": True,
        },
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
        bottleneck_norm: bool = False,
        act: str | Act = "leaky_relu",
        decoder_act: str | Act = "relu",
        act_before_merge: bool = False,
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
        noise_channels: int = 0,
        noise_at: str = "input",
    ) -> None:
        super().__init__()
        self.in_channels = at_least(OWNER, "in_channels", in_channels, 1)
        self.out_channels = at_least(OWNER, "out_channels", out_channels, 1)
        self.channels = _level_widths(base_channels, depth, width_cap, channels)
        self.depth = len(self.channels)
        check_bool(OWNER, "bias", bias, unset=True)
        check_bool(OWNER, "stem", stem)
        check_bool(OWNER, "bottleneck_norm", bottleneck_norm)
        check_bool(OWNER, "act_before_merge", act_before_merge)
        self.bottleneck_norm = bottleneck_norm and self.depth > 1  # the outermost level has none
        self.size_multiple = 2 ** (self.depth - stem)
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ODD_SIZES)
        self.noise_channels = at_least(OWNER, "noise_channels", noise_channels, 0)
        self.noise_at = one_of(OWNER, "noise_at", noise_at, NOISE_AT)
        if noise_at != "input" and noise_channels == 0:
            raise ArgumentError(
                f"{OWNER}: noise_at={noise_at!r} applies only to noise, got noise_channels=0. Give noise_channels, for "
                "example 8, or leave noise_at out."
            )
        at_input, at_bottleneck = (noise_channels if noise_at == place else 0 for place in NOISE_AT)
        one_of(OWNER, "downsample", downsample, DOWNSAMPLE)
        one_of(OWNER, "upsample", upsample, UPSAMPLE)
        at_least(OWNER, "num_convs", num_convs, 1, 16)
        at_least(OWNER, "deconv_size", deconv_size, 2, 16)
        if deconv_size != 4 and upsample != "deconv":
            raise ArgumentError(
                f"{OWNER}: deconv_size={deconv_size} applies only to upsample='deconv', got upsample={upsample!r}. "
                "Leave deconv_size out."
            )
        make_norm, make_act = norm_from(OWNER, norm), act_from(OWNER, "act", act)
        make_decoder_act = act_from(OWNER, "decoder_act", decoder_act)
        biased = not has_shift(make_norm(self.channels[-1])) if bias is None else bias
        innermost = (
            make_norm if bottleneck_norm else nn.Identity,
            make_act if act_before_merge else make_decoder_act,
        )
        self.encoder = _encoder(
            (in_channels + at_input, *self.channels), make_norm, make_act, innermost=innermost,
            stem=stem, downsample=downsample, num_convs=num_convs, bias=biased,
        )  # fmt: skip
        self.attention = nn.ModuleDict(
            {str(level): SelfAttention(self.channels[level]) for level in _attention_levels(attention, self.depth)}
        )
        self.decoder = _decoder(
            self.channels, _level_skips(skips, self.depth), _level_dropouts(dropout, self.depth),
            noise_channels=at_bottleneck, norm=make_norm, act=make_decoder_act, act_before_merge=act_before_merge,
            upsample=upsample, kernel_size=deconv_size, num_convs=num_convs, bias=biased,
        )  # fmt: skip
        last = cast(UpBlock, self.decoder[-1]).out_channels if len(self.decoder) else self.channels[0] + at_bottleneck
        self.head: nn.Module = (
            nn.Conv2d(last, out_channels, 1)
            if stem
            else upsample_conv(last, out_channels, upsample=upsample, kernel_size=deconv_size)
        )
        self.out_act = act_from(OWNER, "out_act", out_act)()
        init_weights(self)

    def forward(self, source: Tensor, noise: Tensor | None = None) -> Tensor:
        check_image(OWNER, source, self.in_channels, self)
        noise = check_noise(OWNER, noise, source, self.noise_channels)
        x = pad_to_fit(OWNER, source, self.size_multiple, self.size_multiple, self.odd_sizes)
        if self.bottleneck_norm and not torch.compiler.is_compiling():
            innermost = [side // self.size_multiple for side in x.shape[-2:]]
            check_norm_values(OWNER, cast(Any, self.encoder[-1]).norm, len(x), *innermost)
        # Inference of a trained network is left alone: its depth is fixed.
        if self.training and not torch.compiler.is_compiling():
            _warn_of_padding(self, source, x)
        if self.noise_at == "input":
            x = append_noise(x, noise)
        features = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if str(level) in self.attention:
                x = self.attention[str(level)](x)
            features.append(x)
        if self.noise_at == "bottleneck":
            x = append_noise(x, noise)
        for block, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = block(x, skip)
        height, width = source.shape[-2:]
        return self.out_act(self.head(x))[..., :height, :width]

    def summary(self) -> str:
        """Return a table with the relative size, channels, skip and receptive field of each level.

        >>> print(UNetGenerator(base_channels=8, depth=3).summary())
        UNetGenerator: 3 -> 3 channels, 23,763 parameters
        level  size  channels  skip    receptive field
            0  1/2          8  concat                4
            1  1/4         16  concat               10
            2  1/8         32  -                    22
        """
        noise = f", {self.noise_channels} of noise at the {self.noise_at}" if self.noise_channels else ""
        lines = [
            f"{OWNER}: {self.in_channels} -> {self.out_channels} channels{noise}, {self.num_parameters():,} parameters",
            f"{'level':>5}  {'size':<5} {'channels':>8}  {'skip':<7} {'receptive field':>15}",
        ]
        names = {kind: name for name, kind in SKIPS.items()}
        merges = [type(cast(UpBlock, block).merge) for block in self.decoder[::-1]]
        skips = [*(names.get(cast(Skip, merge), merge.__name__) for merge in merges), "-"]
        for level, (width, skip) in enumerate(zip(self.channels, skips, strict=True)):
            sees = receptive_field(self.encoder[: level + 1]).size
            field = "whole image" if any(int(at) <= level for at in self.attention) else str(sees)
            reduced = f"1/{2 ** (level + (not self.config['stem']))}"
            lines.append(f"{level:>5}  {reduced:<5} {width:>8}  {skip:<7} {field:>15}")
        return "\n".join(lines)


def _warn_of_padding(network: UNetGenerator, source: Tensor, padded: Tensor) -> None:
    """Warn, once for each network, if padding makes an image more than twice as large. Small images are ignored."""
    (height, width), size = source.shape[-2:], padded.shape[-2:]
    if network in _WARNED or network.depth == 1 or size.numel() < max(LARGE, 2 * height * width + 1):
        return
    _WARNED.add(network)
    for depth in reversed(range(1, network.depth)):
        multiple = network.size_multiple >> (network.depth - depth)
        fit = [round_up_to_multiple(side, multiple, multiple) for side in (height, width)]
        if fit[0] * fit[1] <= 1.25 * height * width:
            break
    warnings.warn(
        f"{OWNER}: depth={network.depth} pads images of {height}x{width} to {size[0]}x{size[1]}, and takes about "
        f"{size.numel() / (height * width):.1f} times as long as without padding. With depth={depth}, they are padded "
        f"to {fit[0]}x{fit[1]}.",
        stacklevel=5,
    )


def _encoder(
    widths: tuple[int, ...],
    norm: Norm,
    act: Act,
    *,
    innermost: tuple[Norm, Act],
    stem: bool,
    downsample: str,
    **settings: Any,
) -> nn.Sequential:
    levels = nn.Sequential()
    for level, (width, next_width) in enumerate(pairwise(widths)):
        make = conv_stack if stem and level == 0 else partial(DownBlock, downsample=downsample)
        level_norm, level_act = innermost if level == len(widths) - 2 else (norm, act)
        level_norm = nn.Identity if level == 0 else level_norm
        levels.append(make(width, next_width, norm=level_norm, act=level_act, **settings))
    return levels


def _decoder(
    channels: tuple[int, ...], skips: list[Skip], dropouts: list[float], *, noise_channels: int, **settings: Any
) -> nn.ModuleList:
    blocks = nn.ModuleList()
    width = channels[-1] + noise_channels
    for level, dropout in zip(reversed(range(len(channels) - 1)), dropouts, strict=True):
        block = UpBlock(
            width, channels[level], skip_channels=channels[level], skip=skips[level], dropout=dropout, **settings
        )
        width = block.out_channels
        blocks.append(block)
    return blocks


def _level_widths(base_channels: int, depth: int, width_cap: int, channels: Sequence[int] | None) -> tuple[int, ...]:
    """Check `channels` and return them; None: `base_channels` doubled level by level, up to `width_cap` times."""
    at_least(OWNER, "base_channels", base_channels, 1)
    at_least(OWNER, "depth", depth, 1, MAX_DEPTH)
    at_least(OWNER, "width_cap", width_cap, 1)
    if channels is None:
        return tuple(base_channels * min(2**level, width_cap) for level in range(depth))
    if not isinstance(channels, (list, tuple)) or not 1 <= len(channels) <= MAX_DEPTH:
        raise ArgumentError(
            f"{OWNER}: channels must be a sequence of 1 to {MAX_DEPTH} widths, one for each level, got {channels!r}."
        )
    for width in channels:
        at_least(OWNER, "each of channels", width, 1)
    # The defaults, 8 and 64, do not contradict `channels`.
    implied = {"depth": (depth, 8, len(channels)), "base_channels": (base_channels, 64, channels[0])}
    for name, (given, default, meant) in implied.items():
        if given not in (default, meant):
            raise ArgumentError(
                f"{OWNER}: channels={tuple(channels)} means {name}={meant}, got {name}={given}. Leave {name} out, or "
                "change channels."
            )
    return tuple(channels)


def _level_skips(skips: str | Skip | Sequence[str | Skip], depth: int) -> list[Skip]:
    """Return the ``depth - 1`` skips from the outermost level inward."""
    if isinstance(skips, str):
        one_of(OWNER, "skips", skips, SKIPS)
    elif not callable(skips) and not isinstance(skips, (list, tuple)):
        raise ArgumentError(f"{OWNER}: skips must be a name, a callable, or a sequence of them, got {skips!r}.")
    for skip in skips if isinstance(skips, (list, tuple)) else [skips]:
        check_no_instance(OWNER, "skips", skip, "channels, skip_channels")
    each = list(skips) if isinstance(skips, (list, tuple)) else [skips] * (depth - 1)
    if len(each) != depth - 1:
        raise ArgumentError(
            f"{OWNER}: skips names {counted(len(each), 'skip')}, but depth={depth} has "
            f"{counted(depth - 1, 'skip')}, counted from the outermost level inward. Pass one name for "
            "all, or one entry for each."
        )
    return [s if callable(s) else SKIPS[one_of(OWNER, "skips", s, SKIPS)] for s in each]


def _level_dropouts(dropout: Sequence[float], depth: int) -> list[float]:
    """Return the ``depth - 1`` probabilities from the innermost level outward."""
    if not isinstance(dropout, (list, tuple)):
        raise ArgumentError(
            f"{OWNER}: dropout must be a sequence of probabilities, one for each decoder level from the innermost "
            f"outward, got {dropout!r}. For example (0.5, 0.5, 0.5), or () for none."
        )
    probabilities = [in_range(OWNER, "each of dropout", p, 0.0, 1.0) for p in dropout]
    return [*probabilities, *[0.0] * depth][: depth - 1]


def _attention_levels(attention: Sequence[int], depth: int) -> list[int]:
    """Return the distinct levels of `attention`, sorted."""
    if not isinstance(attention, (list, tuple)):
        raise ArgumentError(f"{OWNER}: attention must be a sequence of encoder levels, got {attention!r}.")
    levels = sorted({at_least(OWNER, "each of attention", level, 0) for level in attention})
    if levels and levels[-1] >= depth:
        raise ArgumentError(
            f"{OWNER}: attention has level {levels[-1]}, but the innermost level of depth={depth} is {depth - 1}."
        )
    return levels
