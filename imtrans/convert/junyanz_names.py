"""How the reference implementation (pytorch-CycleGAN-and-pix2pix) names the layers of our networks."""

from imtrans.errors import ArgumentError
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator


def reference_names(network: Pretrained) -> dict[str, str]:
    """Map the name of each convolution and norm in `network` to its name in the reference implementation.

    Raises:
        ArgumentError: the reference has no such network.
    """
    if isinstance(network, UNetGenerator) and network.depth > 1:
        return _unet_names(network.depth)
    if isinstance(network, ResnetGenerator):
        dropout = network.config["dropout"] > 0
        return _resnet_names(network.num_downs, len(network.blocks), dropout)
    if isinstance(network, PatchDiscriminator):
        return _stack_names("model", len(network.layers))
    if isinstance(network, PixelDiscriminator):
        return _stack_names("net", len(network.layers))
    raise ArgumentError(f"convert: the reference implementation has no {type(network).__name__} like this one.")


def _unet_names(depth: int) -> dict[str, str]:
    # The reference nests each level inside the next outer one; a nested block holds its down- and its
    # up-convolution, so the up-convolution of block i is our decoder's step from level i to level i - 1.
    prefix = ["model", *("model.model.1" + ".model.3" * (level - 1) for level in range(1, depth))]
    names = {"encoder.0.conv": "model.model.0", "head": "model.model.3"}
    for level in range(1, depth):
        innermost = level == depth - 1
        up, norm = (3, 4) if innermost else (5, 6)
        ours = f"decoder.{depth - 1 - level}"
        names[f"encoder.{level}.conv"] = f"{prefix[level]}.model.1"
        names[f"encoder.{level}.norm"] = f"{prefix[level]}.model.2"
        names[f"{ours}.up"] = f"{prefix[level]}.model.{up}"
        names[f"{ours}.norm"] = f"{prefix[level]}.model.{norm}"
    return names


def _resnet_names(num_downs: int, num_blocks: int, dropout: bool) -> dict[str, str]:
    first_block = 4 + 3 * num_downs
    first_up = first_block + num_blocks
    names = {"stem.conv": "model.1", "stem.norm": "model.2"}
    for i in range(num_downs):
        names[f"downs.{i}.conv"], names[f"downs.{i}.norm"] = f"model.{4 + 3 * i}", f"model.{5 + 3 * i}"
        up = first_up + 3 * i
        names[f"ups.{i}.up"], names[f"ups.{i}.norm"] = f"model.{up}", f"model.{up + 1}"
    for i in range(num_blocks):
        block = f"model.{first_block + i}.conv_block"
        second = 6 if dropout else 5
        names[f"blocks.{i}.conv1.conv"], names[f"blocks.{i}.conv1.norm"] = f"{block}.1", f"{block}.2"
        names[f"blocks.{i}.conv2.conv"] = f"{block}.{second}"
        names[f"blocks.{i}.conv2.norm"] = f"{block}.{second + 1}"
    names["head.conv"] = f"model.{first_up + 3 * num_downs + 1}"
    return names


def _stack_names(root: str, num_layers: int) -> dict[str, str]:
    names = {"layers.0.conv": f"{root}.0"}
    for i in range(1, num_layers):
        names[f"layers.{i}.conv"], names[f"layers.{i}.norm"] = f"{root}.{3 * i - 1}", f"{root}.{3 * i}"
    return names
