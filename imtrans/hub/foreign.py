"""Saved form of any network: `Pretrained` describes itself, for another class the file says how to load it."""

from typing import Any

from torch import Tensor, nn

from imtrans.errors import SavedModelError
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import WEIGHTS, loading_code
from imtrans.modes import unwrap
from imtrans.version import __version__


def describe(network: nn.Module, *, inference_mode: str = "eval") -> dict[str, Any]:
    """Return the content of ``config.json`` of any network, without the wrappers of PyTorch.

    A network that is not a `Pretrained` has the import path of its class there, and the code that loads it. Its
    `inference_mode` is the argument.

    Raises:
        SavedModelError: as for `Pretrained.description`; or the state dict holds anything but tensors.
    """
    network = unwrap(network)
    if isinstance(network, Pretrained):
        return network.description()
    module, name = type(network).__module__, type(network).__qualname__
    if odd := [key for key, value in network.state_dict().items() if not isinstance(value, Tensor)]:
        raise SavedModelError(
            f"{name}: its state dict has an entry {odd[0]!r} that is not a tensor, and {WEIGHTS} holds only tensors. "
            "Save it with torch.save."
        )
    return {
        "library": "imtrans",
        "version": __version__,
        "module": module,
        "class": name,
        "inference_mode": inference_mode,
        "how_to_load": loading_code(module, name, WEIGHTS),
    }
