"""Describe a saved network: its architecture, its training, and its time and memory for an image of a given size.

imtrans info runs/facades/generator
imtrans info junyanz/cyclegan/horse2zebra --size 512 768 --device cpu
imtrans info user/repo --json                           # the same facts for programs
"""

import argparse
import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from imtrans.checks import at_least
from imtrans.cli.command import SizeAction
from imtrans.cli.measure import measure
from imtrans.cli.weights import NAME, add_weights_flags, load_weights
from imtrans.convert.auto import CLASSES
from imtrans.convert.published import PublishedModel, is_published
from imtrans.data.crop_dataset import height_and_width
from imtrans.errors import HubError, counted, one_line
from imtrans.files import read_file
from imtrans.hub.client import pull
from imtrans.hub.model_card import CARD, training_in
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import SavedModel
from imtrans.receptive_fields import receptive_fields

SETTINGS = ("colours", "palette", "num_labels", "instances", "value_range")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `imtrans info`."""
    parser.usage = "%(prog)s NAME [flags]"
    parser.add_argument("name", metavar="NAME", help=f"network: {NAME}")
    parser.add_argument(
        "--size", type=int, nargs="+", action=SizeAction, default=256, metavar=("HEIGHT", "WIDTH"),
        help="of the image to measure: one number for a square (256)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_weights_flags(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (auto)")


def run(args: argparse.Namespace) -> None:
    """Print the facts of the network."""
    facts = facts_of(args)
    print(json.dumps(facts, indent=2) if args.json else as_text(facts))


def facts_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the facts of the network that the flags name, as JSON values."""
    height, width = (at_least("imtrans info", "--size", side, 1) for side in height_and_width(args.size))
    network: Any = load_weights(args.name, args, device=args.device)
    weights = next(network.parameters())
    device, dtype = weights.device, weights.dtype
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    # `imtrans translate` computes in float32.
    source = torch.zeros(1, network.in_channels, height, width, device=device)
    measured = measure(network.float(), source)
    levels = _levels(network, measured.shapes)
    return {
        "name": args.name if args.subfolder is None else f"{args.name}/{args.subfolder}",
        "class": type(network).__name__,
        "arguments": network.config,
        "parameters": network.num_parameters(),
        "bytes": size,
        "dtype": str(dtype).removeprefix("torch."),
        "in_channels": network.in_channels,
        "out_channels": levels[-1]["channels"],
        "size_multiple": getattr(network, "size_multiple", 1),
        "receptive_field": getattr(network, "receptive_field", levels[-1]["receptive_field"]),
        "inference_mode": network.inference_mode,
        **{name: value for name in SETTINGS if (value := getattr(network, name))},
        "levels": levels,
        "training": _training(args),
        "pass": {
            "size": [height, width],
            "device": str(device),
            "threads": torch.get_num_threads(),
            "seconds": measured.seconds,
            "bytes": measured.bytes,
        },
    }


def _levels(network: Pretrained, shapes: Mapping[nn.Module, torch.Size]) -> list[dict[str, Any]]:
    """Return the parts of a network that have parameters and give one map, in the order of their calls."""
    parts = dict(_parts(network, shapes))
    names = {module: name for name, module in parts.items()}
    size = max(4096, getattr(network, "size_multiple", 1))
    fields = receptive_fields(network, parts, in_channels=cast(Any, network).in_channels, input_size=size)
    return [
        {
            "name": name,
            "class": type(module).__name__,
            "channels": shape[1],
            "size": list(shape[2:]),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "receptive_field": found.size if (found := fields[name]) else None,
        }
        for module, shape in shapes.items()
        if (name := names.get(module))
    ]


def _parts(module: nn.Module, called: Collection[nn.Module], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if type(child) in _CONTAINERS or isinstance(child, Pretrained) or child not in called:
            yield from _parts(child, called, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            yield f"{prefix}{name}", child


def _training(args: argparse.Namespace) -> dict[str, Any]:
    """Return how the network was trained, from its model card; of published weights, who trained them."""
    if is_published(args.name):
        return PublishedModel(args.name).training()
    saved = SavedModel(args.name, args.revision, subfolder=args.subfolder)
    with suppress(HubError, OSError):  # a saved model may have no card
        if saved.remote:
            path = pull(args.name, CARD, revision=args.revision, subfolder=args.subfolder)
        else:
            path = Path(args.name, args.subfolder or "", CARD)
        return training_in(read_file(path, most=1_000_000).decode(errors="replace"))
    return {}


def as_text(facts: Mapping[str, Any]) -> str:
    """Return the facts as text for a terminal."""
    multiple, run = facts["size_multiple"], facts["pass"]
    threads = f" ({counted(run['threads'], 'thread')})" if run["device"] == "cpu" else ""
    network = {
        "class": f"{facts['class']}, {facts['in_channels']} -> {facts['out_channels']} channels",
        "arguments": _changed(facts) or "the defaults",
        "parameters": f"{facts['parameters']:,} ({_megabytes(facts['bytes'])} in {facts['dtype']})",
        "receptive field": _field(facts["receptive_field"]),
        "sizes": f"multiples of {multiple}; others are padded" if multiple > 1 else "any",
        "inference mode": facts["inference_mode"],
        **{name: facts[name] for name in SETTINGS if name in facts},
    }
    measured = {
        "image": "{}x{}".format(*run["size"]) + f" on {run['device']}{threads}",
        "time": f"{run['seconds']:.3g} s",
        "memory": f"{_megabytes(run['bytes'])} besides the weights",
    }
    sections = {"training": facts["training"] or {"": "not recorded"}, "one image": measured}
    lines = [facts["name"], *_rows(network), "", *_table(facts["levels"])]
    for title, rows in sections.items():
        lines += ["", title, *_rows(rows)]
    return "\n".join(lines)


def _changed(facts: Mapping[str, Any]) -> str:
    """Return the arguments that differ from the defaults of the class."""
    parameters = inspect.signature(CLASSES[facts["class"]].__init__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return ", ".join(f"{name}={value!r}" for name, value in facts["arguments"].items() if value != defaults.get(name))


def _rows(values: Mapping[str, Any]) -> list[str]:
    # The text of a model card may hold anything.
    rows = [(one_line(name, 40), one_line(str(value))) for name, value in values.items()]
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def _table(levels: list[dict[str, Any]]) -> list[str]:
    rows = [("level", "block", "channels", "size", "parameters", "receptive field")]
    for each in levels:
        size, field = "{}x{}".format(*each["size"]), _field(each["receptive_field"])
        rows.append((each["name"], each["class"], str(each["channels"]), size, f"{each['parameters']:,}", field))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            f"{cell:{'<' if i < 2 else '>'}{width}}" for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _field(size: Any) -> str:
    """Return the text of a receptive field: a number, one for each scale, or None for attention."""
    if size is None:
        return "whole image"
    return ", ".join(map(str, size)) if isinstance(size, (list, tuple)) else str(size)


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MB"
