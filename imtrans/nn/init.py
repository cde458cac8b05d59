"""Weight initialisation."""

import os
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from imtrans.checks import in_range, one_of
from imtrans.errors import ArgumentError
from imtrans.nn.layers import KerasBatchNorm
from imtrans.runtime import pick_device

SCHEMES = ("normal", "xavier", "kaiming", "orthogonal")
NORM_STD = 0.02
_ConvTranspose = nn.modules.conv._ConvTransposeNd
_Norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_SPECTRAL = parametrizations._SpectralNorm

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def init_weights(module: M, scheme: str = "normal", gain: float = 0.02, generator: torch.Generator | None = None) -> M:
    """Initialise every convolution, linear layer and norm in `module` in place, and return `module`.

    - Weights of convolutions and linear layers follow `scheme`; a transposed convolution uses its true fan-in.
    - Scales of norms (batch, instance, group, layer) are N(1, 0.02); of `imtrans.nn.layers.KerasBatchNorm` they are 1.
    - Biases and shifts are 0.

    Args:
        module: any module; its other parameters do not change.
        scheme: ``"normal" | "xavier" | "kaiming" | "orthogonal"``.
        gain: standard deviation for ``"normal"``, gain for ``"xavier"`` and ``"orthogonal"``; ``"kaiming"`` has the
            gain of ReLU.
        generator: on the device of the weights; None for PyTorch's global generator.

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
            continue  # nothing to fill, and PyTorch would import its compiler for it
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            _draw(_leaf(layer, "weight"), scheme, gain, generator, isinstance(layer, _ConvTranspose))
            if layer.bias is not None:
                _leaf(layer, "bias").zero_()
        elif isinstance(layer, _Norms) and layer.weight is not None:
            std = 0.0 if isinstance(layer, KerasBatchNorm) else NORM_STD
            layer.weight.normal_(1.0, std, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    return module


def _leaf(layer: nn.Module, name: str) -> Tensor:
    """Return the trained parameter: the original if it is parametrised (spectral norm)."""
    parametrised = parametrize.is_parametrized(layer, name)
    return layer.get_parameter(f"parametrizations.{name}.original" if parametrised else name)


def _draw(weight: Tensor, scheme: str, gain: float, generator: torch.Generator | None, transposed: bool) -> None:
    if scheme == "normal":
        weight.normal_(0.0, gain, generator=generator)
        return
    # PyTorch computes fans of (out, in, ...) weights; transposed convolutions have (in, out, ...).
    fresh = torch.empty_like(weight.transpose(0, 1) if transposed else weight).contiguous()
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
    """Move `network` to `device`, initialise its weights there, and return it.

    A network on the meta device is allocated directly on `device`. All ranks of a process group get the same weights.

    Args:
        network: any module. If it is on the meta device, its layers need a method ``reset_parameters``.
        device: ``"auto"`` or an argument of `torch.device`; see `imtrans.runtime.pick_device`.
        scheme: this and `gain` are as in `init_weights`.
        seed: seed of the weights; None for PyTorch's global generator.

    Raises:
        ArgumentError: an unknown scheme or device; a distributed launch with neither seed nor process group; a layer
            on the meta device without ``reset_parameters``.
    """
    grouped = dist.is_available() and dist.is_initialized()
    if seed is None and not grouped and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ArgumentError(
            f"init_net: {os.environ['WORLD_SIZE']} processes must start from the same weights, but there is no "
            "seed and no process group. Pass seed=..., or call torch.distributed.init_process_group first."
        )
    target = pick_device(device)
    generator = None if seed is None else torch.Generator(target).manual_seed(seed)
    on_meta = {
        name: module
        for name, module in network.named_modules()
        if any(t.is_meta for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    }
    for name, module in on_meta.items():
        known = isinstance(module, (_SPECTRAL, parametrize.ParametrizationList))
        if not known and not hasattr(module, "reset_parameters"):
            raise ArgumentError(
                f"init_net: {name or 'the network'} ({type(module).__name__}) is on the meta device and has no "
                "reset_parameters(), so its memory cannot be filled. Add this method, or build it on a device."
            )
    if on_meta:
        network.to_empty(device=target)
        for module in on_meta.values():
            if hasattr(module, "reset_parameters"):
                cast(Any, module).reset_parameters()
    else:
        network.to(target)
    init_weights(network, scheme, gain, generator)
    _restart_spectral_norms(network, generator)
    if grouped:
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.data, src=0)
    return network


@torch.no_grad()
def _restart_spectral_norms(network: nn.Module, generator: torch.Generator | None) -> None:
    """Recompute the singular vectors of each spectral norm for the new weights."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], _SPECTRAL):
            norm = module[0]
            for vector in (norm._u, norm._v):
                vector.normal_(generator=generator)
                vector.div_(vector.norm().clamp_min(norm.eps))
            norm._power_method(module.original.flatten(1), 15)
