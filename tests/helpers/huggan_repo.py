"""The files of a repo of HugGAN's pix2pix, with random weights."""

import io
from itertools import pairwise

import torch

REPO = "huggan/pix2pix-night2day"


def checkpoint(*, width=2, depth=8, in_channels=3, out_channels=3):
    """A state dict with the keys and shapes of the published generator, and random weights."""
    widths = [width * min(2**level, 8) for level in range(depth)]
    shapes = {f"down{i}.model.0.weight": pair[::-1] for i, pair in enumerate(pairwise([in_channels, *widths]), 1)}
    inner = widths[-1]
    for i, w in enumerate(reversed(widths[:-1])):
        shapes[f"up{i + 1}.model.0.weight"], inner = (inner, w), 2 * w
    shapes["final.2.weight"] = (out_channels, inner)
    generator = torch.Generator().manual_seed(width + depth)
    state = {key: 0.2 * torch.randn(*shape, 4, 4, generator=generator) for key, shape in shapes.items()}
    return {**state, "final.2.bias": torch.randn(out_channels, generator=generator)}


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def files(state=None, **changes):
    """The files of a published repo."""
    found = {
        ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"---\nlibrary_name: pytorch\n---\n",
        "config.json": b"{}",
        "pytorch_model.bin": saved(checkpoint() if state is None else state),
        **changes,
    }
    return {name: content for name, content in found.items() if content is not None}
