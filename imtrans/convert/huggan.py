"""Generators of HugGAN's pix2pix in a repo or folder, as networks of imtrans.

https://github.com/huggingface/community-events, ``huggan/pytorch/pix2pix``
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imtrans.convert.junyanz import State, match_tensors
from imtrans.convert.torch_file import read_torch_file
from imtrans.errors import HubError, ImtransError, SavedModelError, join_names
from imtrans.files import sha256_of
from imtrans.hub.client import is_intact, is_missing
from imtrans.hub.saved_model import CONFIG, LARGEST_CONFIG, SavedModel
from imtrans.nn.huggan import HugGANGenerator
from imtrans.version import __version__

FILE = "pytorch_model.bin"
_ADVICE = "Of such files, only the generators of HugGAN's pix2pix are read."
_OTHERS = {"library", "method", "architectures", "model_type", "_class_name"}
"""Entries with which imtrans, transformers and diffusers name an architecture in ``config.json``."""
_FIRST, _LAST = "down1.model.0.weight", "final.2.weight"


@dataclass
class HugGANModel(SavedModel):
    """A repo or folder with a generator of HugGAN's pix2pix, read as a saved model of a `HugGANGenerator`.

    Its files are `FILE`, and a ``config.json`` that names no architecture, or none. The inference mode is ``"eval"``,
    which HugGAN's ``from_pretrained`` sets.
    """

    def exists(self) -> bool:
        """Whether there are such files. Raises a HubError if the Hub does not answer."""
        return self._find(CONFIG, self._names_nothing) is not False and bool(self._find(FILE, Path.is_file))

    def config(self) -> dict[str, Any]:
        """Read the tensors, and return what a ``config.json`` of imtrans would say of them.

        Raises:
            SavedModelError: the file is damaged, or holds anything but such a generator.
            HubError: the file cannot be fetched.
        """
        arguments, self._tensors, digest = self._read(FILE, self._parse_file)
        return {
            "library": "imtrans",
            "version": __version__,
            "class": HugGANGenerator.__name__,
            "arguments": arguments,
            "inference_mode": "eval",
            "sha256": digest,
        }

    def tensors(self, sha256: str) -> dict[str, Tensor]:
        """Return the tensors that `config` read, by the keys of `HugGANGenerator`."""
        return self._tensors

    def _find(self, file: str, parse: Callable[[Path], bool]) -> bool | None:
        """Parse a file; None if there is none."""
        try:
            return self._read(file, parse)
        except (HubError, SavedModelError) as error:
            if is_missing(error):
                return None
            raise

    def _names_nothing(self, path: Path) -> bool:
        content = self._bytes(path, LARGEST_CONFIG + 1)
        try:
            config = json.loads(content) if len(content) <= LARGEST_CONFIG else None
        except (ValueError, RecursionError):
            return False
        return isinstance(config, dict) and not _OTHERS & config.keys()

    def _parse_file(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
        content = self._bytes(path)
        if self.remote and not is_intact(path, content):
            raise SavedModelError(f"{path} is damaged: it differs from the file on the Hub. Fetch it again.")
        state = read_torch_file(path, advice=_ADVICE)
        try:
            arguments = _arguments(state)
            return arguments, _converted(arguments, state), sha256_of(content)
        except ImtransError as error:
            raise SavedModelError(f"{path}: {error}") from error


def _arguments(state: State) -> dict[str, Any]:
    """Infer the arguments of the `HugGANGenerator` from the names and shapes of the tensors."""
    if any(key not in state or state[key].ndim != 4 for key in (_FIRST, _LAST)):
        raise SavedModelError(
            f"this is no generator of HugGAN's pix2pix: its tensors are {join_names(sorted(state)) or 'none'}. "
            f"{_ADVICE}"
        )
    width, in_channels = state[_FIRST].shape[:2]
    depth = sum(key.startswith("down") for key in state)
    return {"in_channels": in_channels, "out_channels": len(state[_LAST]), "base_channels": width, "depth": depth}


def _converted(arguments: dict[str, Any], state: State) -> dict[str, Tensor]:
    """Rename the tensors, and put the halves of inputs in our order: skip, then features of the decoder."""
    with torch.device("meta"):
        network = HugGANGenerator(**arguments)
    depth = arguments["depth"]
    names = {"head.2": "final.2"}
    names |= {f"encoder.{i}.conv": f"down{i + 1}.model.0" for i in range(depth)}
    names |= {f"decoder.{i}.up": f"up{i + 1}.model.0" for i in range(depth - 1)}
    tensors = match_tensors(network, state, names)
    merged = {f"decoder.{i}.up.weight": 0 for i in range(1, depth - 1)}
    if depth > 1:
        merged["head.2.weight"] = 1
    for key, axis in merged.items():
        tensors[key] = tensors[key].roll(tensors[key].shape[axis] // 2, axis)
    return tensors
