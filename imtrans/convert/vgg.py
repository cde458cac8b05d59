"""Weights of VGG19 from a file, for `imtrans.perceptual_loss`."""

from os import PathLike
from pathlib import Path

import torch
from torch import nn

from imtrans.convert.torch_file import read_torch_file
from imtrans.errors import SavedModelError, join_names
from imtrans.files import disk_errors, read_file
from imtrans.hub.saved_model import parse_tensors
from imtrans.nn.perceptual import vgg19

GIVE = "Give the state dict of torchvision's vgg19, such as vgg19-dcbb9e9d.pth."


def load_vgg19(path: str | PathLike[str]) -> nn.Sequential:
    """Read the convolutional part of VGG19 from a file that you have; nothing is fetched.

    The file has the tensors of torchvision's ``vgg19``, or of its part ``features``. The network is in evaluation mode,
    on the CPU; see `imtrans.nn.perceptual.vgg19` for its layers.

    Args:
        path: a ``.safetensors`` file, or a state dict of ``torch.save``, which is read without running code.

    Raises:
        SavedModelError: the file cannot be read, is damaged, or holds another network.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with disk_errors(SavedModelError, f"{path} cannot be read", "Check the path."):
            content = read_file(path)
        state = parse_tensors(path, content)
    else:
        state = read_torch_file(path, advice=GIVE)
    with torch.device("meta"):
        network = vgg19()
    prefix = "features." if any(key.startswith("features.") for key in state) else ""
    wanted = network.state_dict()
    index = {name: i for i, name in enumerate(network._modules)}
    tensors, bad = {}, []
    for key, tensor in wanted.items():
        layer, _, part = key.rpartition(".")
        theirs = f"{prefix}{index[layer]}.{part}"
        found = state.get(theirs)
        if found is None or found.shape != tensor.shape or not found.is_floating_point():
            bad.append(theirs)
        else:
            tensors[key] = found.float()
    if bad:
        raise SavedModelError(f"{path} holds no VGG19: it lacks {join_names(bad)}, or has another shape there. {GIVE}")
    network.load_state_dict(tensors, assign=True)
    return network.eval()
