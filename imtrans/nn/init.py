"""Initial weights, drawn where the network lives, and the choice of that device."""

import os
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from imtrans.checks import in_range, one_of
from imtrans.errors import ArgumentError
from imtrans.runtime import pick_device

SCHEMES = ("normal", "xavier", "kaiming", "orthogonal")
NORM_STD = 0.02
_Conv = nn.modules.conv._ConvNd
_ConvTranspose = nn.modules.conv._ConvTransposeNd
_Norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_SPECTRAL = parametrizations._SpectralNorm

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def init_weights(module: M, scheme: str = "normal", gain: float = 0.02, generator: torch.Generator | None = None) -> M:
    """Draw new weights for every convolution, linear layer and norm in `module`, in place, and return it.

    Convolutions and linear layers: ``"normal"`` is N(0, gain); ``"xavier"`` and ``"orthogonal"`` are scaled by
    `gain`; ``"kaiming"`` is for ReLU and takes no gain. A transposed convolution is initialised by its true
    fan. Biases are 0. The scale of a norm (batch, synchronised batch, instance, group, layer) is
    N(1, 0.02), its shift 0.

    Args:
        module: any module; its other parameters stay as they are.
        scheme: one of ``"normal" | "xavier" | "kaiming" | "orthogonal"``.
        gain: standard deviation for ``"normal"``, scale for ``"xavier"`` and ``"orthogonal"``.
        generator: drawn from instead of PyTorch's global generator; on the device of the weights.

    Raises:
        ArgumentError: an unknown scheme, or a negative gain.

    Source: Isola et al. 2017, section 6.2 (N(0, 0.02)).

    >>> conv = init_weights(nn.Conv2d(3, 8, 3), generator=torch.Generator().manual_seed(0))
    >>> bool(conv.bias.eq(0).all())
    True
    """
    one_of("init_weights", "scheme", scheme, SCHEMES)
    in_range("init_weights", "gain", gain, 0.0)
    for layer in module.modules():
        if any(parameter.is_meta for parameter in layer.parameters(recurse=False)):
            continue  # there is no memory to fill, and PyTorch would import its compiler to do it
        if isinstance(layer, (_Conv, nn.Linear)):
            _draw(_leaf(layer, "weight"), scheme, gain, generator, isinstance(layer, _ConvTranspose))
            if layer.bias is not None:
                _leaf(layer, "bias").zero_()
        elif isinstance(layer, _Norms) and layer.weight is not None:
            layer.weight.normal_(1.0, NORM_STD, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    return module


def _leaf(layer: nn.Module, name: str) -> Tensor:
    """The parameter that is trained: the original one where the layer's is parametrised (spectral norm)."""
    if parametrize.is_parametrized(layer, name):
        parametrizations_of = layer.get_submodule(f"parametrizations.{name}")
        original: Tensor = parametrizations_of.get_parameter("original")
        return original
    return layer.get_parameter(name)


def _draw(weight: Tensor, scheme: str, gain: float, generator: torch.Generator | None, transposed: bool) -> None:
    if scheme == "normal":
        weight.normal_(0.0, gain, generator=generator)
        return
    # torch reads the fan from axes 0 and 1 as (out, in); a transposed convolution keeps them as (in, out).
    fresh = torch.empty_like(weight.transpose(0, 1) if transposed else weight)
    fresh = fresh.contiguous()
    if scheme == "xavier":
        nn.init.xavier_normal_(fresh, gain, generator=generator)
    elif scheme == "kaiming":
        nn.init.kaiming_normal_(fresh, nonlinearity="relu", generator=generator)
    else:
        nn.init.orthogonal_(fresh, gain, generator=generator)
    weight.copy_(fresh.transpose(0, 1) if transposed else fresh)


def init_net(
    network: M,
    device: str | torch.device = "auto",
    *,
    scheme: str = "normal",
    gain: float = 0.02,
    seed: int | None = None,
) -> M:
    """Move `network` to its device and draw its weights there; return it.

    A network that was built on the meta device gets its memory straight on `device`, so that a large one
    never passes through the CPU. Every rank of a distributed run ends with the same weights.

    Args:
        network: any module. One on the meta device must be made of layers with ``reset_parameters``.
        device: ``"auto"``, or what `torch.device` takes; see `pick_device`.
        scheme: see `init_weights`.
        gain: see `init_weights`.
        seed: makes the draw repeatable; without it the global generator is used.

    Raises:
        ArgumentError: an unknown scheme or device; a distributed launch without a seed or a process group; a
            layer on the meta device that cannot fill its own memory.
    """
    owner = "init_net"
    grouped = dist.is_available() and dist.is_initialized()
    if seed is None and not grouped and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ArgumentError(
            f"{owner}: {os.environ['WORLD_SIZE']} processes must start from the same weights, but there is no "
            "seed and no process group. Pass seed=..., or call torch.distributed.init_process_group first."
        )
    place = pick_device(device)
    generator = None if seed is None else torch.Generator(place).manual_seed(seed)
    on_meta = {id(m) for m in network.modules() if any(t.is_meta for t in _own_tensors(m))}
    if on_meta:
        _check_resettable(owner, network, on_meta)
        network.to_empty(device=place)
        for module in network.modules():
            if id(module) in on_meta and hasattr(module, "reset_parameters"):
                cast(Any, module).reset_parameters()
    else:
        network.to(place)
    init_weights(network, scheme, gain, generator)
    _restart_spectral_norms(network, generator)
    if grouped:
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.data, src=0)
    return network


def _own_tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _check_resettable(owner: str, network: nn.Module, on_meta: set[int]) -> None:
    for name, module in network.named_modules():
        known = isinstance(module, (_SPECTRAL, parametrize.ParametrizationList))
        if id(module) in on_meta and not known and not hasattr(module, "reset_parameters"):
            raise ArgumentError(
                f"{owner}: {name or 'the network'} ({type(module).__name__}) is on the meta device and has no "
                "reset_parameters(), so its memory cannot be filled. Give it that method, or build it on a device."
            )


@torch.no_grad()
def _restart_spectral_norms(network: nn.Module, generator: torch.Generator | None) -> None:
    """Fit each spectral norm's singular vectors to the weights that were just drawn."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], _SPECTRAL):
            norm = module[0]
            for vector in (norm._u, norm._v):
                vector.normal_(generator=generator)
                vector.div_(vector.norm().clamp_min(norm.eps))
            norm._power_method(module.original.flatten(1), 15)
