"""Weights for another number of input or output channels, as timm adapts them (``adapt_input_conv``)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from imtrans.errors import SavedModelError

_Conv = nn.Conv2d | nn.ConvTranspose2d


Change = tuple[int, int]
"""The number of channels of the saved network, and the new one."""


def adapt_channels(
    saved: nn.Module, network: nn.Module, tensors: Mapping[str, Tensor], *, inputs: Change, outputs: Change
) -> dict[str, Tensor]:
    """Return `tensors`, which fit `saved`, as tensors that fit `network`, built for other numbers of channels.

    - Input channels of a convolution: for one channel the weights are summed, for more they are repeated, cut, and
      multiplied by ``old / new``. So a grey image, given as one channel or as three equal ones, has equal outputs. The
      weights of noise at the input are kept.
    - Output channels, with their biases: for one channel the mean, for more they are repeated and cut.

    Both networks may be on the meta device.

    Raises:
        SavedModelError: a tensor of another shape is not of a convolution without groups at an end of the network.
    """
    adapted, wanted = dict(tensors), network.state_dict()
    noise = int(getattr(saved, "noise_channels", 0)) if getattr(saved, "noise_at", None) == "input" else 0
    for key in wanted:
        tensor = tensors[key]
        if wanted[key].shape != tensor.shape and not key.endswith("._v"):
            name, _, kind = key.replace(".parametrizations.weight.original", ".weight").rpartition(".")
            conv, new = saved.get_submodule(name), network.get_submodule(name)
            found = _adapted(conv, new, kind, tensor, inputs, outputs, noise)
            if found is None or found.shape != wanted[key].shape:
                raise SavedModelError(
                    f"{type(network).__name__}: {key} would change from shape {tuple(tensor.shape)} to "
                    f"{tuple(wanted[key].shape)}, and only the first and last convolutions, without groups, are "
                    "adapted to another number of channels. Load the network without in_channels and out_channels, "
                    "and replace this layer."
                )
            adapted[key] = found
    for name, module in network.named_modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], _SpectralNorm):
            weight = f"{name}.original"
            if wanted[weight].shape != tensors[weight].shape:
                u, _, v = torch.linalg.svd(adapted[weight].flatten(1).float(), full_matrices=False)
                for vector, value in (("_u", u[:, 0]), ("_v", v[0])):
                    adapted[f"{name}.0.{vector}"] = value.to(adapted[weight].dtype).contiguous()
    return adapted


def _adapted(
    conv: nn.Module, new: nn.Module, kind: str, tensor: Tensor, inputs: Change, outputs: Change, noise: int
) -> Tensor | None:
    """Return the weight or bias of `conv` for `new`; None if it cannot be adapted."""
    if not isinstance(conv, _Conv) or not isinstance(new, _Conv) or conv.groups > 1:
        return None
    in_axis, out_axis = (0, 1) if isinstance(conv, nn.ConvTranspose2d) else (1, 0)
    if kind == "weight" and (conv.in_channels - noise, new.in_channels - noise) == inputs and inputs[0] != inputs[1]:
        old, count = inputs
        tensor, of_noise = tensor.split([old, noise], dim=in_axis)
        repeated = tensor.index_select(in_axis, torch.arange(count) % old) * (old / count)
        tensor = torch.cat([tensor.sum(in_axis, keepdim=True) if count == 1 else repeated, of_noise], dim=in_axis)
    each = new.out_channels // outputs[1]  # 4 before a pixel shuffle, which makes one channel of four
    if (conv.out_channels, new.out_channels) == (each * outputs[0], each * outputs[1]) and outputs[0] != outputs[1]:
        axis, (old, count) = 0 if kind == "bias" else out_axis, outputs
        parts = tensor.unflatten(axis, (old, each))
        repeated = parts.index_select(axis, torch.arange(count) % old)
        tensor = (parts.mean(axis, keepdim=True) if count == 1 else repeated).flatten(axis, axis + 1)
    return tensor
