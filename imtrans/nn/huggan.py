"""The U-Net generator of the HugGAN event (Linder-Norén 2018; Hugging Face 2022)."""

from torch import Tensor, nn

from imtrans.checks import at_least, in_range, one_of
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.blocks import DownBlock, UpBlock
from imtrans.nn.init import init_weights
from imtrans.nn.inputs import check_image, pad_to_fit
from imtrans.nn.layers import ACTS, ODD_SIZES
from imtrans.nn.unet import MAX_DEPTH

OWNER = "HugGANGenerator"
FULL = 3  # first level of full width, 8 * base_channels


class HugGANGenerator(Pretrained):
    """The U-Net of the weights that HugGAN published, such as ``huggan/pix2pix-night2day``.

    It differs from `imtrans.UNetGenerator` with instance norm and without biases in four ways:

    - A decoder level applies its activation before it merges the skip.
    - The encoder has dropout too. Encoder and decoder have it in the levels of full width.
    - The bottleneck has a leaky ReLU.
    - The output layer repeats each pixel, pads with zeros, 2 at the left and the top and 1 at the right and the bottom,
      and convolves 4x4.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, h, w)``, images in [-1, 1].

    Args:
        in_channels: number of source channels.
        out_channels: number of output channels.
        base_channels: width of the outermost level; each further level doubles it, up to 8 times.
        depth: number of levels; each halves the image.
        dropout: probability from the fourth level inward.
        odd_sizes: for an image whose size is not a multiple of ``2 ** depth``: ``"pad"`` replicates its edge and crops
            the output back, ``"error"`` raises.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, a wrong number of channels, or with ``odd_sizes="error"`` a size that does not fit.

    Source: https://github.com/huggingface/community-events, ``huggan/pytorch/pix2pix``.

    >>> import torch
    >>> HugGANGenerator(base_channels=4, depth=3)(torch.zeros(1, 3, 50, 33)).shape
    torch.Size([1, 3, 50, 33])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        depth: int = 8,
        dropout: float = 0.5,
        odd_sizes: str = "pad",
    ) -> None:
        super().__init__()
        self.in_channels = at_least(OWNER, "in_channels", in_channels, 1)
        self.out_channels = at_least(OWNER, "out_channels", out_channels, 1)
        at_least(OWNER, "base_channels", base_channels, 1)
        self.size_multiple = 2 ** at_least(OWNER, "depth", depth, 1, MAX_DEPTH)
        in_range(OWNER, "dropout", dropout, 0.0, 1.0)
        self.odd_sizes = one_of(OWNER, "odd_sizes", odd_sizes, ODD_SIZES)
        widths = [base_channels * 2 ** min(level, FULL) for level in range(depth)]
        self.encoder = nn.Sequential()
        width = in_channels
        for level, next_width in enumerate(widths):
            norm = nn.Identity if level in (0, depth - 1) else nn.InstanceNorm2d
            block = DownBlock(width, next_width, norm=norm, act=ACTS["leaky_relu"], bias=False)
            if level >= FULL and dropout > 0:
                block.add_module("dropout", nn.Dropout(dropout))
            self.encoder.append(block)
            width = next_width
        self.decoder = nn.ModuleList()
        for level in reversed(range(depth - 1)):
            up = UpBlock(
                width, widths[level], skip_channels=widths[level], norm=nn.InstanceNorm2d, act=ACTS["relu"],
                dropout=dropout if level >= FULL else 0.0, act_before_merge=True, bias=False,
            )  # fmt: skip
            self.decoder.append(up)
            width = up.out_channels
        self.head = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest"), nn.ZeroPad2d((2, 1, 2, 1)), nn.Conv2d(width, out_channels, 4)
        )
        self.out_act = nn.Tanh()
        init_weights(self)

    def forward(self, source: Tensor) -> Tensor:
        check_image(OWNER, source, self.in_channels, self)
        x = pad_to_fit(OWNER, source, self.size_multiple, self.size_multiple, self.odd_sizes)
        features = []
        for down in self.encoder:
            x = down(x)
            features.append(x)
        for up, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = up(x, skip)
        height, width = source.shape[-2:]
        return self.out_act(self.head(x))[..., :height, :width]
