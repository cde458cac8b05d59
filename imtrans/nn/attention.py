"""Self-attention over the pixels of a feature map (Zhang et al. 2019, SAGAN)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.errors import ArgumentError


class SelfAttention(nn.Module):
    """Self-attention with a residual connection: ``x + gamma * attention(x)``; `gamma` is learned and starts at 0.

    Time grows with the square of the number of pixels, so it is meant for small maps.

    Shape: ``(b, channels, h, w) -> (b, channels, h, w)``.

    Args:
        channels: number of input and output channels.
        num_heads: number of attention heads; must divide `channels`.

    Raises:
        ArgumentError: `channels` is not a multiple of `num_heads`.

    Source: Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", section 3, with scaled dot products
    and heads as in Vaswani et al. 2017.
    """

    def __init__(self, channels: int, *, num_heads: int = 1) -> None:
        super().__init__()
        at_least("SelfAttention", "num_heads", num_heads, 1)
        if channels % num_heads:
            raise ArgumentError(
                f"SelfAttention: channels={channels} is not a multiple of num_heads={num_heads}. "
                "Choose a number of heads that divides the channels."
            )
        self.num_heads = num_heads
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        """Set `gamma` to 0; needed again after a move off the meta device."""
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        qkv = rearrange(self.to_qkv(x), "b (three head c) h w -> three b head (h w) c", three=3, head=self.num_heads)
        mixed = F.scaled_dot_product_attention(*qkv.contiguous().unbind())
        return x + self.gamma * self.out(rearrange(mixed, "b head (h w) c -> b (head c) h w", h=h, w=w))
