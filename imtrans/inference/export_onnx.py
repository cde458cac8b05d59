"""Export of a generator to ONNX, for programs that do not use PyTorch."""

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from imtrans.checks import at_least, check_bool
from imtrans.errors import ArgumentError, ImtransError, SavedModelError, join_names, one_line, short_repr
from imtrans.files import disk_errors, write_atomic
from imtrans.hub.pretrained import Pretrained
from imtrans.inference.translate import check_generator
from imtrans.modes import has_dropout, running_as, unwrap
from imtrans.nn.layers import NearestConv
from imtrans.nn.noise import noise_channels
from imtrans.version import __version__

OPSET = 18  # the exporter's own: other versions are converted from it
METADATA = "imtrans"  # key of the facts in the file
_LARGEST = 2**31 - 2**24  # bytes of weights: protobuf ends at 2 GiB, with the graph
_PACKAGES = ("onnx", "onnxscript")
_SETTINGS = ("colours", "palette", "num_labels", "instances", "value_range")


def export_onnx(
    generator: nn.Module,
    path: str | os.PathLike[str],
    *,
    mode: str | None = None,
    size: tuple[int, int] | None = None,
    dynamic: bool = True,
) -> None:
    """Write a generator as one ONNX file, whose graph computes what the generator does in `mode`.

    The graph maps ``source`` to ``fake``: float32 images ``(batch, c, height, width)`` in [-1, 1]. A generator with
    noise has a second input ``noise``, ``(batch, noise_channels)``, from N(0, 1). Padding to the
    generator's `size_multiple` is part of it, and the output is cropped back. It computes in float32 for weights of
    every type, and has opset 18, without custom operators. The generator is left unchanged: a copy is exported, without
    parametrizations such as spectral norm, and with the resizes of `imtrans.nn.layers.NearestConv` folded into kernels.

    The metadata of the file has an entry ``imtrans`` in JSON. It holds the version, class, arguments, colours, palette
    and value range as ``config.json`` does, the exported mode as ``inference_mode``, ``in_channels`` and
    ``size_multiple``. An argument that is a callable is its dotted name there.

    Args:
        generator: as for `imtrans.translate`.
        path: the file. Its folder may be new.
        mode: ``"eval" | "batch_stats"``, see `imtrans.modes.running_as`; None for the generator's `inference_mode`. In
            ``"batch_stats"``, batch norms take the statistics of the whole batch, as in PyTorch. ``"paper"`` is for
            generators without dropout, and is the same there.
        size: ``(height, width)`` for images of this size alone; None for every size.
        dynamic: whether the file takes batches of every size. False is for batches of 1, and needs a `size`.

    Raises:
        ArgumentError: a value that is not allowed, random dropout, a generator that PyTorch cannot export or that has 2
            GB of weights, or a package of ``imtrans[onnx]`` is not installed.
        ShapeError: a `size` that the generator does not take.
        SavedModelError: the file cannot be written.

    With ``odd_sizes="error"``, a generator refuses a `size` that does not fit. A graph for every size cannot raise, and
    pads.
    """
    channels, mode = check_generator("export_onnx", generator, mode, None)
    shape, axes = _source_shape(generator, channels, size, dynamic)
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ArgumentError(
            f"export_onnx: needs {join_names(missing)}, which is not installed. Install it with: "
            'pip install "imtrans[onnx]".'
        )
    network = _exportable(unwrap(generator), mode)
    inputs = {"source": torch.zeros(shape)}
    if count := noise_channels(network):
        inputs["noise"] = torch.zeros(shape[0], count)
    model = _to_onnx(network, mode, inputs, axes)
    model.metadata_props[METADATA] = _facts(unwrap(generator), channels, mode)
    import onnx_ir  # slow to import

    path = Path(path)
    with disk_errors(SavedModelError, f"{path} cannot be written", "Make room, or choose another path."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, onnx_ir.to_proto(model).SerializeToString(deterministic=True))


def _source_shape(
    generator: nn.Module, channels: int, size: tuple[int, int] | None, dynamic: bool
) -> tuple[tuple[int, int, int, int], dict[int, str]]:
    """Return the shape of an example, and the names of the axes that may have other sizes."""
    check_bool("export_onnx", "dynamic", dynamic)
    axes = {0: "batch"} if dynamic else {}
    batch = 2 if dynamic else 1  # 1 would be taken for a constant
    if size is not None:
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            raise ArgumentError(f"export_onnx: size must be None or (height, width), got {short_repr(size)}.")
        height, width = (at_least("export_onnx", "each of size", side, 1) for side in size)
        return (batch, channels, height, width), axes
    if not dynamic:
        raise ArgumentError(
            "export_onnx: dynamic=False is for images of one size, and needs size=(height, width). Leave dynamic out "
            "for a file that takes every size."
        )
    unit = _unit(unwrap(generator))
    # The exporter keeps decisions that hold for the example: a size that fits, or is small, would be a special case.
    return (batch, channels, 3 * unit - 1, 4 * unit + 3), {**axes, 2: "height", 3: "width"}


def _exportable(generator: nn.Module, mode: str) -> nn.Module:
    """Return a copy in float32 on the CPU that computes the same in `mode`, in a form that the exporter takes."""
    if mode == "paper" and has_dropout(generator):
        raise ArgumentError(
            f"export_onnx: {type(generator).__name__} has dropout, which is random in mode='paper', and a graph cannot "
            "draw as PyTorch does. Use mode='batch_stats', which is the same without dropout, or mode='eval'."
        )
    if (weights := 4 * sum(p.numel() for p in generator.parameters())) > _LARGEST:
        raise ArgumentError(
            f"export_onnx: {type(generator).__name__} has {weights:,} bytes of weights in float32, and an ONNX file "
            f"holds at most {_LARGEST:,}. Export a smaller generator."
        )
    network = copy.deepcopy(generator).eval().requires_grad_(False)
    network.to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _remove_parametrizations(module)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, NearestConv):
                setattr(module, name, child.folded())
    return network


def _remove_parametrizations(module: nn.Module) -> None:
    """Replace parametrized tensors by their values.

    PyTorch's `remove_parametrizations` changes the class of the module, which its copies share.
    """
    values = {name: getattr(module, name) for name in cast(nn.ModuleDict, module.parametrizations)}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _to_onnx(network: nn.Module, mode: str, inputs: dict[str, torch.Tensor], axes: dict[int, str]) -> Any:
    """Return the graph of `network` as an `onnx_ir.Model`, without names of source files.

    `axes` are the ones of the source that may have other sizes. Other inputs have the batch alone.
    """
    import torch.onnx  # slow to import
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    name = type(network).__name__
    all_axes = tuple({axis: axes[axis] for axis in axes if axis < 1 or name == "source"} for name in inputs)
    shapes = tuple(dict.fromkeys(each, torch.export.Dim.DYNAMIC) for each in all_axes)
    try:
        with torch.no_grad(), running_as(network, mode), _exporter_warnings():
            _forget_unused_statistics(network)
            exported = torch.export.export(network, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
            if (outputs := len(exported.graph_signature.user_outputs)) != 1:
                raise ArgumentError(
                    f"export_onnx: {name} must return one tensor, the fake, and returns {outputs}. Wrap it in a module "
                    "that returns the fake alone."
                )
            if 2 in axes:
                _check_other_size(network, exported, inputs)
            model = cast(Any, torch.onnx.export(
                exported, input_names=[*inputs], output_names=["fake"], dynamic_shapes=all_axes,
                opset_version=OPSET, dynamo=True, verbose=False,
            )).model  # fmt: skip
    except ImtransError:
        raise
    except Exception as error:  # the exporter, and the code of a network, can raise any
        one_size = ", or try size=(height, width) and dynamic=False" if 2 in axes else ""
        raise ArgumentError(
            f"export_onnx: {name} cannot be exported by torch.onnx.export: {one_line(str(error)).rstrip('.')}. Replace "
            f"what PyTorch cannot trace{one_size}."
        ) from error
    ClearMetadataAndDocStringPass()(model)
    return model


def _check_other_size(
    network: nn.Module, exported: torch.export.ExportedProgram, inputs: dict[str, torch.Tensor]
) -> None:
    """Raise an ArgumentError if the graph holds a decision of `network` that is wrong for another size of images."""
    unit = _unit(network)
    shape = (1, inputs["source"].shape[1], unit, 2 * unit)  # fits, as the example does not
    source = torch.linspace(-1, 1, shape[1] * shape[2] * shape[3]).reshape(shape)
    others = [tensor[:1] for name, tensor in inputs.items() if name != "source"]
    # The guards also hold what PyTorch found about the memory of the example, which does not matter.
    fake, expected = exported.module(check_guards=False)(source, *others), network(source, *others)
    if fake.shape != expected.shape or not torch.allclose(fake, expected, rtol=1e-3, atol=1e-4):
        raise ArgumentError(
            f"export_onnx: {type(network).__name__} decides by the size of the image, and one graph cannot: for "
            f"{shape[2]}x{shape[3]}, its output is not the network's. Pass size=(height, width)."
        )


def _unit(generator: nn.Module) -> int:
    return max(16, getattr(generator, "size_multiple", 1))


def _forget_unused_statistics(network: nn.Module) -> None:
    """Drop the running statistics of instance norms that use the statistics of their input and would update them."""
    for module in network.modules():
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.training:
            module.running_mean = module.running_var = None


@contextmanager
def _exporter_warnings() -> Iterator[None]:
    """Context manager that hides messages of the exporter: its deprecated call, torchvision, and equal batch axes."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def relevant(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger.addFilter(relevant)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used", UserWarning)
            yield
    finally:
        logger.removeFilter(relevant)


def _facts(generator: nn.Module, channels: int, mode: str) -> str:
    """Return the entry of the metadata."""
    facts = {
        "library": "imtrans",
        "version": __version__,
        "class": parametrize.type_before_parametrizations(generator).__name__,
        "inference_mode": mode,
        "in_channels": channels,
        "size_multiple": getattr(generator, "size_multiple", 1),
    }
    if isinstance(generator, Pretrained):
        facts["arguments"] = generator.config
    settings = {name: getattr(generator, name, None) for name in _SETTINGS}
    return json.dumps({**facts, **{name: value for name, value in settings.items() if value}}, default=_dotted)


def _dotted(value: Any) -> str:
    """Return the dotted name of a callable argument."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
