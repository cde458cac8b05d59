"""Checkpoints of the reference implementation (pytorch-CycleGAN-and-pix2pix), as our networks.

Run as ``python -m imtrans.convert latest_net_G.pth OUT_DIR`` it writes a folder that `load_pretrained` takes.
"""

import argparse
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imtrans.checks import one_of
from imtrans.convert.junyanz_names import reference_names as reference_names
from imtrans.convert.torch_file import read_torch_file
from imtrans.errors import ArgumentError, ImtransError, SavedModelError, join_names, one_line, short_repr
from imtrans.hub.pretrained import Pretrained
from imtrans.modes import MODES
from imtrans.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator

State = Mapping[str, Tensor]


def from_junyanz(path: str | PathLike[str], *, dropout: bool = True, mode: str = "eval") -> Pretrained:
    """Read a checkpoint that the reference implementation saved, as a network of ours with equal outputs.

    The architecture is worked out from the names and shapes of the tensors: a U-Net of any depth, a ResNet of any
    number of blocks, a PatchGAN of any depth, a pixel discriminator; of any widths and channels; with batch norm,
    instance norm or none; from one GPU or several. The network is in evaluation mode, on the CPU.

    Args:
        path: of the ``.pth`` file.
        dropout: whether a U-Net was trained with dropout, which leaves no trace in its tensors. The reference trains
            pix2pix with it by default, and the CycleGAN and test models without. It matters in the mode ``"paper"``,
            and when training goes on.
        mode: the network's `inference_mode`, see `imtrans.modes.running_as`. The reference's ``test.py`` computes
            ``"paper"`` unless it is told ``--eval``.

    Raises:
        ArgumentError: an unknown `mode`.
        SavedModelError: the file cannot be read, holds more than tensors (nothing in it is run), or holds no network of
            the reference's.
    """
    one_of("from_junyanz", "mode", mode, MODES)
    path = Path(path)
    state = _clean(_read(path))
    try:
        # Nothing is allocated, and no random number drawn, before the shapes have been found to fit.
        with torch.device("meta"):
            network = _architecture(state, dropout)
        tensors = _matched(network, state)
    except ImtransError as error:
        raise SavedModelError(f"{path}: {error}") from error
    except KeyError as error:
        raise SavedModelError(
            f"{path} looks like a network of pytorch-CycleGAN-and-pix2pix, but lacks the tensor "
            f"{one_line(str(error), 100)}."
        ) from error
    except (IndexError, ValueError, RuntimeError, OverflowError) as error:
        raise SavedModelError(
            f"{path} looks like a network of pytorch-CycleGAN-and-pix2pix, but has a tensor of an unknown name or "
            "shape."
        ) from error
    network.to_empty(device="cpu").load_state_dict(tensors)
    network.inference_mode = mode
    return network.eval()


def _read(path: Path) -> dict[str, Tensor]:
    found = read_torch_file(path)
    if not isinstance(found, dict):
        raise SavedModelError(f"{path} holds a {type(found).__name__}, not a dict of tensors. Give a *_net_*.pth file.")
    for key, value in found.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise SavedModelError(
                f"{path} holds {short_repr(value)} under {short_repr(key)}, not a tensor by its name. Give a "
                f"*_net_*.pth file."
            )
    return found


def _clean(state: State) -> dict[str, Tensor]:
    """The state as PyTorch would save it now, from one GPU.

    Without the prefix of DataParallel, and the running statistics that old instance norms stored unused; with the
    counters that batch norms have had since PyTorch 0.4.1.
    """
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
            "this is a GeneratorUNet of HugGAN, not a network of pytorch-CycleGAN-and-pix2pix. Its decoder takes skips "
            "past the activation, and its last layer is a resize with a one-sided pad: no blocks do that."
        )
    if "model.model.0.weight" in state:
        return _unet(state, dropout)
    if "net.0.weight" in state:
        return PixelDiscriminator(
            _width(state, "net.0", 1), base_channels=_width(state, "net.0"), **_norm(state, "net.2")
        )
    if "model.0.weight" in state:
        return PatchDiscriminator(
            _width(state, "model.0", 1),
            base_channels=_width(state, "model.0"),
            n_layers=sum(tensor.ndim == 4 for tensor in state.values()) - 2,
            **_norm(state, "model.2"),
        )
    if "model.1.weight" in state:
        return _resnet(state)
    raise SavedModelError(
        f"this is no network of pytorch-CycleGAN-and-pix2pix: its tensors are {join_names(sorted(state)) or 'none'}."
    )


def _norm(state: State, conv: str) -> dict[str, Any]:
    """The norm, by its traces: running statistics, or a bias of `conv`, which goes with instance norm alone."""
    if any(key.endswith(".running_mean") for key in state):
        return {"norm": "batch"}
    return {"norm": "instance"} if f"{conv}.bias" in state else {"norm": "none", "bias": False}


def _width(state: State, name: str, axis: int = 0) -> int:
    return state[f"{name}.weight"].shape[axis]


def _unet(state: State, dropout: bool) -> UNetGenerator:
    names = ["model.model.0"]
    block = "model.model.1"
    while f"{block}.model.1.weight" in state:
        names.append(f"{block}.model.1")
        block += ".model.3"
    channels, depth = [_width(state, name) for name in names], len(names)
    widths: dict[str, Any] = {"base_channels": channels[0], "depth": depth}
    if channels != [channels[0] * min(2**level, 8) for level in range(depth)]:
        widths = {"channels": channels}
    # The reference drops out in all blocks but the innermost and the four outermost.
    probabilities = (0.0, *[0.5] * (depth - 5)) if dropout and depth > 5 else ()
    widths["in_channels"] = _width(state, "model.model.0", 1)
    widths["out_channels"] = _width(state, "model.model.3", 1)
    return UNetGenerator(**widths, dropout=probabilities, **_norm(state, "model.model.0"))


def _resnet(state: State) -> ResnetGenerator:
    numbers = sorted({int(key.split(".")[1]) for key in state})
    blocks = sorted({int(key.split(".")[1]) for key in state if ".conv_block." in key})
    convs = [n for n in numbers if n not in blocks and state.get(f"model.{n}.weight", torch.empty(0)).ndim == 4]
    second = f"model.{blocks[0]}.conv_block.6.weight" if blocks else ""
    return ResnetGenerator(
        _width(state, "model.1", 1),
        _width(state, f"model.{convs[-1]}"),
        base_channels=_width(state, "model.1"),
        num_blocks=len(blocks),
        num_downs=(len(convs) - 2) // 2,
        dropout=0.5 if second in state and state[second].ndim == 4 else 0.0,
        **_norm(state, "model.1"),
    )


def load_reference(network: Pretrained, state: State) -> None:
    """Put a state dict that the reference implementation saved into `network`.

    The network must have the architecture of the reference's: the same depth, widths, norm and biases.

    Raises:
        ArgumentError: the reference has no such network.
        SavedModelError: the state lacks a tensor, has one too many, or one of another shape.
    """
    network.load_state_dict(_matched(network, _clean(state)))


def _matched(network: Pretrained, state: State) -> dict[str, Tensor]:
    """The tensors of a clean `state` by their names in `network`; they have been found to fit."""
    names = reference_names(network)
    own = network.state_dict()
    owner = type(network).__name__
    theirs = {}
    for key in own:
        layer, _, tensor = key.rpartition(".")
        if layer not in names:
            raise ArgumentError(f"convert: the reference implementation has no {owner} with {key}.")
        theirs[key] = f"{names[layer]}.{tensor}"
    if missing := sorted(set(theirs.values()) - state.keys()):
        raise SavedModelError(f"{owner}: the checkpoint lacks {join_names(missing)}. Is it of this architecture?")
    if unknown := sorted(state.keys() - set(theirs.values())):
        raise SavedModelError(f"{owner}: the checkpoint has more than the network: {join_names(unknown)}.")
    for key, reference_key in theirs.items():
        if own[key].shape != state[reference_key].shape:
            raise SavedModelError(
                f"{owner}: the checkpoint has {reference_key} in shape {tuple(state[reference_key].shape)}, "
                f"the network's {key} has {tuple(own[key].shape)}."
            )
        if own[key].is_floating_point() != state[reference_key].is_floating_point():
            raise SavedModelError(
                f"{owner}: the checkpoint has {reference_key} of type {state[reference_key].dtype}, the network's "
                f"{key} has {own[key].dtype}."
            )
    return {key: state[reference_key] for key, reference_key in theirs.items()}


def main(arguments: list[str] | None = None) -> int:
    """Convert a file, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m imtrans.convert", description=__doc__)
    parser.add_argument("checkpoint", help="a .pth file that pytorch-CycleGAN-and-pix2pix saved")
    parser.add_argument("out", help="the folder to write")
    parser.add_argument("--no-dropout", action="store_true", help="the U-Net was trained without dropout")
    parser.add_argument("--mode", choices=MODES, default="eval", help="how the network is meant to be run (eval)")
    args = parser.parse_args(arguments)
    try:
        network = from_junyanz(args.checkpoint, dropout=not args.no_dropout, mode=args.mode)
        network.save_pretrained(args.out)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    settings = ", ".join(f"{k}={v!r}" for k, v in network.config.items() if v not in (None, (), []))
    print(f"{type(network).__name__}({settings})\nwritten to {args.out}")
    return 0
