"""Attention between the pixels of a map."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.errors import ArgumentError


class SelfAttention(nn.Module):
    """Let every pixel look at every other one: ``x + gamma * attention(x)``, with ``gamma`` 0 at the start.

    Its cost grows with the square of the number of pixels: meant for small maps.

    Shape: ``(b, channels, h, w) -> (b, channels, h, w)``.

    Args:
        channels: of input and output.
        num_heads: of attention; `channels` must be a multiple of it.

    Raises:
        ArgumentError: `channels` is no multiple of `num_heads`.

    Source: Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", section 3; with the scaled
    product and the heads of Vaswani et al. 2017.
    """

    def __init__(self, channels: int, *, num_heads: int = 1) -> None:
        super().__init__()
        at_least("SelfAttention", "num_heads", num_heads, 1)
        if channels % num_heads:
            raise ArgumentError(
                f"SelfAttention: channels={channels} is no multiple of num_heads={num_heads}. "
                "Choose a divisor of the channels."
            )
        self.num_heads = num_heads
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        """Start as the identity again, after the memory was moved off the meta device."""
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        q, k, v = (
            rearrange(self.to_qkv(x), "b (three head c) h w -> three b head (h w) c", three=3, head=self.num_heads)
            .contiguous()
            .unbind()
        )
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.gamma * self.out(rearrange(seen, "b head (h w) c -> b (head c) h w", h=h, w=w))
