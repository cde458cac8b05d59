"""The coarse-to-fine generator of pix2pixHD (Wang et al. 2018)."""

from typing import Any, cast

from torch import Tensor, nn

from imtrans.checks import at_least, check_bool, in_range, one_of
from imtrans.errors import ArgumentError
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.inputs import check_image, pad_to_fit
from imtrans.nn.layers import ODD_SIZES, PADDING_MODES, UPSAMPLE, Act, Norm, act_from, downsample, norm_from
from imtrans.nn.resnet import ResnetGenerator

OWNER = "LocalEnhancer"


class LocalEnhancer(Pretrained):
    """A generator for large images: ``coarse`` works at half the size, ``fine`` adds the details.

    ``coarse`` is a `imtrans.ResnetGenerator` without its output convolution, or a `LocalEnhancer` if `num_enhancers` is
    above 1. ``fine`` downsamples the image once, adds the features of ``coarse``, and computes the output with residual
    blocks and one upsampling.

    Train it in two stages: first the global generator on images of half the size, then the enhancer, made with
    `from_global`. In its first epochs, keep the global weights fixed with ``coarse.requires_grad_(False)``.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1].

    Args:
        in_channels: number of source channels.
        out_channels: number of output channels.
        base_channels: width at full resolution; doubled at each lower resolution.
        num_enhancers: number of enhancers; each doubles the size that the global generator works at.
        num_blocks: number of residual blocks in each enhancer.
        global_blocks: number of residual blocks in the global generator.
        global_downs: number of downsamplings in the global generator.
        odd_sizes: ``"pad"`` or ``"error"``; sizes fit if they are multiples of ``2 ** (global_downs + num_enhancers)``.

    The other arguments are as in `imtrans.ResnetGenerator`.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, a wrong number of channels, or with ``odd_sizes="error"`` a size that does not fit.

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
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ODD_SIZES)
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
        outermost = self.coarse.fine if isinstance(self.coarse, LocalEnhancer) else self.coarse
        outermost.register_module("head", nn.Identity())
        shared["out_act"] = act_from(OWNER, "out_act", out_act)
        self.fine: ResnetGenerator = ResnetGenerator(
            in_channels, out_channels, base_channels=base_channels, num_blocks=num_blocks, num_downs=1, **shared
        )
        self.halve = downsample()

    @classmethod
    def from_global(cls, generator: ResnetGenerator, *, num_enhancers: int = 1, num_blocks: int = 3) -> "LocalEnhancer":
        """Make an enhancer around a trained global generator and copy its weights, all but the output convolution.

        Args:
            generator: the global generator; `base_channels` must be a multiple of ``2 ** num_enhancers``. The enhancer
                takes its other arguments.
            num_enhancers: this and `num_blocks` as for the class.

        Raises:
            ArgumentError: another class of generator, or a width that does not fit.
        """
        owner = f"{cls.__name__}.from_global"
        if not isinstance(generator, ResnetGenerator):
            raise ArgumentError(f"{owner}: takes a ResnetGenerator, got {type(generator).__name__}.")
        arguments = dict(generator.config)
        at_least(owner, "num_enhancers", num_enhancers, 1, 4)
        base, rest = divmod(arguments.pop("base_channels"), 2**num_enhancers)
        if rest:
            raise ArgumentError(
                f"{owner}: base_channels={generator.config['base_channels']} of the global generator must be a "
                f"multiple of {2**num_enhancers}, because each enhancer halves the width. "
                "Use fewer enhancers, or train a global generator of another width."
            )
        arguments |= {f"global_{name}": arguments.pop(f"num_{name}") for name in ("blocks", "downs")}
        enhancer = cls(**arguments, base_channels=base, num_enhancers=num_enhancers, num_blocks=num_blocks)
        enhancer.to(next(generator.parameters()).device)
        innermost = enhancer.coarse
        while isinstance(innermost, LocalEnhancer):
            innermost = innermost.coarse
        innermost.load_state_dict({k: t for k, t in generator.state_dict().items() if not k.startswith("head.")})
        return enhancer

    def forward(self, source: Tensor) -> Tensor:
        check_image(OWNER, source, self.in_channels, self)
        # Reflection padding needs two pixels at the lowest resolution.
        image = pad_to_fit(OWNER, source, self.size_multiple, 2 * self.size_multiple, self.odd_sizes)
        fine, coarse = self.fine, self.coarse(self.halve(image))
        x = fine.downs(fine.stem(image)) + coarse
        height, width = source.shape[-2:]
        return cast(Tensor, fine.head(fine.ups(fine.blocks(x))))[..., :height, :width]
