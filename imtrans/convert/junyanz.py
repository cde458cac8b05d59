"""Checkpoints of pytorch-CycleGAN-and-pix2pix, the reference implementation, as networks of imtrans.

https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imtrans.checks import one_of
from imtrans.convert.torch_file import read_torch_file
from imtrans.errors import ArgumentError, ImtransError, SavedModelError, join_names, one_line
from imtrans.hub.pretrained import Pretrained
from imtrans.modes import MODES
from imtrans.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator

State = Mapping[str, Tensor]


def from_junyanz(path: str | PathLike[str], *, dropout: bool = True, mode: str = "eval") -> Pretrained:
    """Read a checkpoint of the reference implementation. The network computes the same outputs.

    The architecture is inferred from the names and shapes of the tensors: a U-Net, ResNet or PatchGAN of any depth, or
    a pixel discriminator; of any widths and channels; with batch norm, instance norm or none; saved from one GPU or
    several. The network is in evaluation mode, on the CPU.

    Args:
        path: the ``.pth`` file.
        dropout: whether a U-Net was trained with dropout, which the tensors do not show. The reference uses dropout by
            default for pix2pix and not for CycleGAN. It changes the mode ``"paper"`` and further training.
        mode: the network's `inference_mode`, see `imtrans.modes.running_as`. The reference's ``test.py`` runs in
            ``"paper"``, or in ``"eval"`` with its flag ``--eval``.

    Raises:
        ArgumentError: an unknown `mode`.
        SavedModelError: the file cannot be read, holds anything but tensors (which is not run), or holds no network of
            the reference implementation.
    """
    one_of("from_junyanz", "mode", mode, MODES)
    path = Path(path)
    state = _clean(read_torch_file(path))
    try:
        # On the meta device nothing is allocated, and no random number drawn, before the shapes are checked.
        with torch.device("meta"):
            network = _architecture(state, dropout)
        tensors = match_tensors(network, state, reference_names(network))
    except ImtransError as error:
        raise SavedModelError(f"{path}: {error}") from error
    except (LookupError, ValueError, RuntimeError, OverflowError) as error:
        missing = f"lacks the tensor {one_line(str(error), 100)}" if isinstance(error, KeyError) else ""
        raise SavedModelError(
            f"{path} looks like a network of pytorch-CycleGAN-and-pix2pix, but "
            f"{missing or 'has a tensor of an unknown name or shape'}."
        ) from error
    network.to_empty(device="cpu").load_state_dict(tensors)
    network.inference_mode = mode
    return network.eval()


def load_reference(network: Pretrained, state: State) -> None:
    """Load a state dict of the reference implementation into `network`, which must have the same architecture.

    Raises:
        ArgumentError: the reference implementation has no such network.
        SavedModelError: a tensor is missing, unknown, or has another shape or type.
    """
    network.load_state_dict(match_tensors(network, _clean(state), reference_names(network)))


def _clean(state: State) -> dict[str, Tensor]:
    """Remove DataParallel's prefix and old instance norms' unused statistics; add the counters of old batch norms."""
    plain = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    cleaned: dict[str, Tensor] = {}
    for key, tensor in plain.items():
        layer, _, name = key.rpartition(".")
        if name not in ("running_mean", "running_var", "num_batches_tracked") or f"{layer}.weight" in plain:
            cleaned[key] = tensor
            if name == "running_mean":
                cleaned.setdefault(f"{layer}.num_batches_tracked", torch.tensor(0))
    return cleaned


def _architecture(state: State, dropout: bool) -> Pretrained:
    if "down1.model.0.weight" in state:
        raise SavedModelError(
            "this is a GeneratorUNet of HugGAN, not a network of pytorch-CycleGAN-and-pix2pix. load_pretrained takes "
            "its repo, or a folder that holds it as pytorch_model.bin."
        )
    if "model.model.0.weight" in state:
        return _unet(state, dropout)
    if "net.0.weight" in state:
        return PixelDiscriminator(
            _size(state, "net.0", 1), base_channels=_size(state, "net.0"), **_norm(state, "net.2")
        )
    if "model.0.weight" in state:
        return PatchDiscriminator(
            _size(state, "model.0", 1),
            base_channels=_size(state, "model.0"),
            n_layers=sum(tensor.ndim == 4 for tensor in state.values()) - 2,
            **_norm(state, "model.2"),
        )
    if "model.1.weight" in state:
        return _resnet(state)
    raise SavedModelError(
        f"this is no network of pytorch-CycleGAN-and-pix2pix: its tensors are {join_names(sorted(state)) or 'none'}."
    )


def _norm(state: State, conv: str) -> dict[str, Any]:
    """Batch norm has running statistics; a convolution before an instance norm has a bias."""
    if any(key.endswith(".running_mean") for key in state):
        return {"norm": "batch"}
    return {"norm": "instance"} if f"{conv}.bias" in state else {"norm": "none", "bias": False}


def _size(state: State, name: str, axis: int = 0) -> int:
    return state[f"{name}.weight"].shape[axis]


def _unet(state: State, dropout: bool) -> UNetGenerator:
    names, block = ["model.model.0"], "model.model.1"
    while f"{block}.model.1.weight" in state:
        names.append(f"{block}.model.1")
        block += ".model.3"
    channels, depth = [_size(state, name) for name in names], len(names)
    widths: dict[str, Any] = {"base_channels": channels[0], "depth": depth}
    if channels != [channels[0] * min(2**level, 8) for level in range(depth)]:
        widths = {"channels": channels}
    # The reference drops out in all blocks but the innermost and the four outermost.
    probabilities = (0.0, *[0.5] * (depth - 5)) if dropout and depth > 5 else ()
    widths["in_channels"], widths["out_channels"] = _size(state, "model.model.0", 1), _size(state, "model.model.3", 1)
    return UNetGenerator(**widths, dropout=probabilities, **_norm(state, "model.model.0"))


def _resnet(state: State) -> ResnetGenerator:
    numbers = sorted({int(key.split(".")[1]) for key in state})
    blocks = sorted({int(key.split(".")[1]) for key in state if ".conv_block." in key})
    convs = [n for n in numbers if n not in blocks and state.get(f"model.{n}.weight", torch.empty(0)).ndim == 4]
    second = f"model.{blocks[0]}.conv_block.6.weight" if blocks else ""
    return ResnetGenerator(
        _size(state, "model.1", 1),
        _size(state, f"model.{convs[-1]}"),
        base_channels=_size(state, "model.1"),
        num_blocks=len(blocks),
        num_downs=(len(convs) - 2) // 2,
        dropout=0.5 if second in state and state[second].ndim == 4 else 0.0,
        **_norm(state, "model.1"),
    )


def match_tensors(network: Pretrained, state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename the tensors of `state` to the keys of `network`, and check that all fit.

    `names` maps the names of the network's layers to theirs.
    """
    own, owner = network.state_dict(), type(network).__name__
    matched = {}
    for key in own:
        layer, _, name = key.rpartition(".")
        if layer not in names:
            raise ArgumentError(f"convert: the reference implementation has no {owner} with {key}.")
        matched[key] = f"{names[layer]}.{name}"
    if missing := sorted(set(matched.values()) - state.keys()):
        raise SavedModelError(f"{owner}: the checkpoint lacks {join_names(missing)}. Is it of this architecture?")
    if unknown := sorted(state.keys() - set(matched.values())):
        raise SavedModelError(f"{owner}: the checkpoint has more than the network: {join_names(unknown)}.")
    for key, theirs in matched.items():
        found, wanted = state[theirs], own[key]
        if found.shape != wanted.shape or found.is_floating_point() != wanted.is_floating_point():
            raise SavedModelError(
                f"{owner}: the checkpoint has {theirs} in shape {tuple(found.shape)} and type {found.dtype}, the "
                f"network has {key} in shape {tuple(wanted.shape)} and type {wanted.dtype}."
            )
    return {key: state[theirs] for key, theirs in matched.items()}


def reference_names(network: Pretrained) -> dict[str, str]:
    """Map the name of each convolution and norm in `network` to its name in the reference; else an ArgumentError."""
    if isinstance(network, UNetGenerator) and network.depth > 1:
        return _unet_names(network.depth)
    if isinstance(network, ResnetGenerator):
        return _resnet_names(network.num_downs, len(network.blocks), 6 if network.config["dropout"] > 0 else 5)
    if isinstance(network, (PatchDiscriminator, PixelDiscriminator)):
        root = "net" if isinstance(network, PixelDiscriminator) else "model"
        names = {"layers.0.conv": f"{root}.0"}
        for i in range(1, len(network.layers)):
            names[f"layers.{i}.conv"], names[f"layers.{i}.norm"] = f"{root}.{3 * i - 1}", f"{root}.{3 * i}"
        return names
    raise ArgumentError(f"convert: the reference implementation has no {type(network).__name__} like this one.")


def _unet_names(depth: int) -> dict[str, str]:
    # Each block of the reference holds its down-convolution, the next inner block, and its up-convolution, which is
    # our decoder's step from level i to level i - 1.
    names = {"encoder.0.conv": "model.model.0", "head": "model.model.3"}
    for level in range(1, depth):
        block, ours = "model.model.1" + ".model.3" * (level - 1), f"decoder.{depth - 1 - level}"
        up = 3 if level == depth - 1 else 5
        names[f"encoder.{level}.conv"], names[f"encoder.{level}.norm"] = f"{block}.model.1", f"{block}.model.2"
        names[f"{ours}.up"], names[f"{ours}.norm"] = f"{block}.model.{up}", f"{block}.model.{up + 1}"
    return names


def _resnet_names(num_downs: int, num_blocks: int, second: int) -> dict[str, str]:
    first_block = 4 + 3 * num_downs
    first_up = first_block + num_blocks
    names = {"stem.conv": "model.1", "stem.norm": "model.2", "head.conv": f"model.{first_up + 3 * num_downs + 1}"}
    for i in range(num_downs):
        down, up = 4 + 3 * i, first_up + 3 * i
        names[f"downs.{i}.conv"], names[f"downs.{i}.norm"] = f"model.{down}", f"model.{down + 1}"
        names[f"ups.{i}.up"], names[f"ups.{i}.norm"] = f"model.{up}", f"model.{up + 1}"
    for i in range(num_blocks):
        for ours, number in (("conv1", 1), ("conv2", second)):
            block = f"model.{first_block + i}.conv_block"
            names[f"blocks.{i}.{ours}.conv"] = f"{block}.{number}"
            names[f"blocks.{i}.{ours}.norm"] = f"{block}.{number + 1}"
    return names
