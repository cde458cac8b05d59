"""The coarse-to-fine generator of pix2pixHD: local enhancers around a global generator."""

from typing import Any, cast

from torch import Tensor, nn

from imtrans.checks import at_least, check_bool, in_range, one_of
from imtrans.errors import ArgumentError
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.layers import (
    PADDING_MODES,
    UPSAMPLE,
    Act,
    Norm,
    act_from,
    check_image,
    downsample,
    norm_from,
    pad_to_fit,
    round_up_to_multiple,
)
from imtrans.nn.resnet import ResnetGenerator

OWNER = "LocalEnhancer"


class LocalEnhancer(Pretrained):
    """A generator for large images: a coarse one that sees half the size, and a fine one that adds the details.

    ``coarse`` is a `imtrans.ResnetGenerator` without its last convolution. ``fine`` reads the full image with a 7x7
    convolution and a downsampling; what it has then, and the features that ``coarse`` made of the halved image, are
    added, and go through residual blocks, one doubling and the output convolution. With more `num_enhancers`,
    ``coarse`` is itself such a generator.

    It is trained in two stages: the global generator alone on images of half the size, then this one, made with
    `from_global`. In its first epochs ``coarse.requires_grad_(False)`` keeps what was learnt.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1].

    Args:
        in_channels: of the source.
        out_channels: of the output.
        base_channels: width at full resolution; the global generator has twice that at half the resolution.
        num_enhancers: how often the size is doubled over that of the global generator.
        num_blocks: residual blocks of each enhancer.
        global_blocks: residual blocks of the global generator.
        global_downs: halvings of the global generator.
        norm: see `imtrans.ResnetGenerator`, as for all that follow.
        act: a name, or a callable ``() -> module``.
        dropout: probability inside the residual blocks.
        padding_mode: ``"zeros" | "reflect" | "replicate" | "circular"``.
        upsample: ``"deconv" | "nearest" | "bilinear" | "shuffle"``.
        bias: of every convolution but the output's; None where the norm has no shift.
        out_act: the last activation: a name or a callable.
        odd_sizes: ``"pad"`` or ``"error"``, for sizes that are no multiple of
            ``2 ** (global_downs + num_enhancers)``.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, an image of another number of channels, or of a size that does not fit with
            ``odd_sizes="error"``.

    Source: Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
    section 3.2, and the authors' code.

    >>> import torch
    >>> generator = LocalEnhancer(9, base_channels=2, num_blocks=1, global_blocks=1, global_downs=2)
    >>> generator(torch.zeros(1, 9, 50, 33)).shape
    torch.Size([1, 3, 50, 33])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 32,
        num_enhancers: int = 1,
        num_blocks: int = 3,
        global_blocks: int = 9,
        global_downs: int = 4,
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
        wide = 2 * at_least(OWNER, "base_channels", base_channels, 1)
        at_least(OWNER, "num_enhancers", num_enhancers, 1, 4)
        at_least(OWNER, "num_blocks", num_blocks, 0, 200)
        at_least(OWNER, "global_blocks", global_blocks, 0, 200)
        at_least(OWNER, "global_downs", global_downs, 0, 16)
        check_bool(OWNER, "bias", bias, unset=True)
        self.size_multiple = 2 ** (global_downs + num_enhancers)
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ("pad", "error"))
        shared: dict[str, Any] = {
            "norm": norm_from(OWNER, norm),
            "act": act_from(OWNER, "act", act),
            "dropout": in_range(OWNER, "dropout", dropout, 0.0, 1.0),
            "padding_mode": one_of(OWNER, "padding_mode", padding_mode, PADDING_MODES),
            "upsample": one_of(OWNER, "upsample", upsample, UPSAMPLE),
            "bias": bias,
        }
        self.coarse: Pretrained = (
            ResnetGenerator(in_channels, base_channels=wide, num_blocks=global_blocks, num_downs=global_downs, **shared)
            if num_enhancers == 1
            else LocalEnhancer(
                in_channels, base_channels=wide, num_enhancers=num_enhancers - 1, num_blocks=num_blocks,
                global_blocks=global_blocks, global_downs=global_downs, **shared,
            )
        )  # fmt: skip
        _outermost(self.coarse).register_module("head", nn.Identity())
        shared["out_act"] = act_from(OWNER, "out_act", out_act)
        self.fine = ResnetGenerator(
            in_channels, out_channels, base_channels=base_channels, num_blocks=num_blocks, num_downs=1, **shared
        )
        self.halve = downsample()

    @classmethod
    def from_global(cls, generator: ResnetGenerator, *, num_enhancers: int = 1, num_blocks: int = 3) -> "LocalEnhancer":
        """Make the enhancer of a trained global generator, with its weights in ``coarse``.

        Its output convolution is left behind; all that the enhancer adds starts anew.

        Args:
            generator: the global one, of an even `base_channels`; its other arguments become the enhancer's.
            num_enhancers: as for the class.
            num_blocks: as for the class.

        Raises:
            ArgumentError: another kind of generator, or one whose width cannot be halved for each enhancer.
        """
        owner = f"{cls.__name__}.from_global"
        if not isinstance(generator, ResnetGenerator):
            raise ArgumentError(f"{owner}: takes a ResnetGenerator, got {type(generator).__name__}.")
        arguments = dict(generator.config)
        at_least(owner, "num_enhancers", num_enhancers, 1, 4)
        base, rest = divmod(arguments.pop("base_channels"), 2**num_enhancers)
        if rest:
            raise ArgumentError(
                f"{owner}: each of {num_enhancers} enhancers halves the width of the global generator, and "
                f"base_channels={generator.config['base_channels']} is no multiple of {2**num_enhancers}. "
                "Train a global generator of another width, or use fewer enhancers."
            )
        of_global = {f"global_{name}": arguments.pop(f"num_{name}") for name in ("blocks", "downs")}
        enhancer = cls(**arguments, **of_global, base_channels=base, num_enhancers=num_enhancers, num_blocks=num_blocks)
        enhancer.to(next(generator.parameters()).device)
        innermost = enhancer.coarse
        while isinstance(innermost, LocalEnhancer):
            innermost = innermost.coarse
        kept = {name: t for name, t in generator.state_dict().items() if not name.startswith("head.")}
        innermost.load_state_dict(kept)
        return enhancer

    def forward(self, source: Tensor) -> Tensor:
        check_image(OWNER, source, self.in_channels)
        # As in ResnetGenerator: two pixels at the lowest resolution, for the reflection there.
        least = round_up_to_multiple(4, self.size_multiple, 2 * self.size_multiple)
        image = pad_to_fit(OWNER, source, self.size_multiple, least, self.odd_sizes)
        fine, coarse = self.fine, self.coarse(self.halve(image))
        x = fine.downs(fine.stem(image)) + coarse
        height, width = source.shape[-2:]
        return cast(Tensor, fine.head(fine.ups(fine.blocks(x))))[..., :height, :width]


def _outermost(generator: Pretrained) -> ResnetGenerator:
    """The part of `generator` that makes its output."""
    return generator.fine if isinstance(generator, LocalEnhancer) else cast(ResnetGenerator, generator)
