"""The format of a saved network: ``config.json`` and ``model.safetensors``, in a folder or on the Hub."""

import json
import os
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from imtrans.colours import COLOUR_SPACES
from imtrans.errors import ArgumentError, SavedModelError, did_you_mean, join_names, one_line, short_repr
from imtrans.files import disk_errors, json_bytes, read_file, sha256_of, similar_path, write_together
from imtrans.hub.client import has_digest, is_intact, is_repo_id, pull

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FLOATS = ("float16", "bfloat16", "float32", "float64")
_KINDS = {"library": str, "version": str, "class": str, "arguments": dict, "inference_mode": str, "sha256": str}
_OPTIONAL = {
    "dtype": FLOATS, "memory_format": ("channels_last",), "colours": tuple(COLOUR_SPACES),
    "palette": None, "num_labels": None, "instances": None, "value_range": None,
}  # fmt: skip
"""Allowed values; None for those that the network checks."""
LARGEST_CONFIG = 1_000_000


def write_saved(folder: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, all or none, or raise a SavedModelError. The description gets the digest of the weights."""
    if (folder / "checkpoints").is_dir() and (folder / CONFIG).exists():
        raise SavedModelError(
            f"{folder} is the folder of a training run, and its {CONFIG} would be overwritten. Choose another folder."
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with write_together(folder) as files:
            digest = files.write(WEIGHTS, tensors)
            files.write(CONFIG, json_bytes({**description, "sha256": digest}))


def writing(folder: Path) -> AbstractContextManager[None]:
    """Context manager that converts an OSError into a SavedModelError about `folder`."""
    return disk_errors(SavedModelError, f"{folder} cannot be written", "Make room, or choose another folder.")


@dataclass
class SavedModel:
    """The files of a saved network, which are fetched when they are read. Arguments are as in `from_pretrained`.

    Raises:
        ArgumentError: a `revision` of a folder.
        SavedModelError: `name` is neither a folder nor the name of a repo.
    """

    name: str | PathLike[str]
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    subfolder: str | None = None

    def __post_init__(self) -> None:
        # os.path takes any name; the methods of Path raise for some.
        self.remote = not os.path.exists(self.name) and isinstance(self.name, str) and is_repo_id(self.name)
        if self.revision is not None and not self.remote:
            raise ArgumentError(f"{self.name} is a folder: revision={self.revision!r} is for a repo on the Hub.")
        if not self.remote and not os.path.isdir(self.name):
            raise SavedModelError(
                f"{self.name} is neither a folder nor the name of a repo on the Hub, 'user/repo'. "
                f"{_advice_on_name(self.name)}"
            )

    def __str__(self) -> str:
        return str(self.name) if self.subfolder is None else f"{self.name}/{self.subfolder}"

    def config(self) -> dict[str, Any]:
        """Read ``config.json`` and check it. Raises a SavedModelError, or a HubError if it cannot be fetched."""
        return self._read(CONFIG, self._parse_config)

    def tensors(self, sha256: str) -> dict[str, Tensor]:
        """Read the weights into memory and check their digest. Raises as `config` does."""

        def parse(path: Path) -> dict[str, Tensor]:
            content = self._bytes(path)
            if sha256_of(content) != sha256:
                raise SavedModelError(
                    f"{path} is damaged, or belongs to another {CONFIG}: its SHA-256 differs from the one there. Fetch "
                    "or save the model again."
                )
            return parse_tensors(path, content)

        return self._read(WEIGHTS, parse)

    def _read(self, file: str, parse: Any) -> Any:
        """Parse a file. One from the Hub's cache is fetched once more, unless its digest shows that it is intact."""
        if not self.remote:
            return parse(Path(self.name, self.subfolder or "", file))
        options: dict[str, Any] = {"revision": self.revision, "token": self.token, "subfolder": self.subfolder}
        path = pull(str(self.name), file, **options, fresh=False)
        try:
            return parse(path)
        except SavedModelError:
            if has_digest(path) and is_intact(path, self._bytes(path)):
                raise
            return parse(pull(str(self.name), file, **options, fresh=True))

    def _foreign(self, path: Path, saved: dict[str, Any]) -> str:
        """Text of the error for a network that is not of imtrans."""
        module, name = saved["module"], saved.get("class")
        if not all(isinstance(part, str) and re.fullmatch(r"[\w.<>]{1,200}", part) for part in (module, name)):
            return (
                f"{path} does not name a class: module={short_repr(module)}, class={short_repr(name)}. Fetch it again."
            )
        code = "; ".join(
            line.partition("  #")[0] for line in loading_code(module, str(name), str(path.parent / WEIGHTS))
        )
        return (
            f"{self} holds a {module}.{name}, which is not a network of imtrans, and no code is imported for it. Build "
            f"it with the arguments that it had, and load its weights: {code}"
        )

    def _bytes(self, path: Path, most: int | None = None) -> bytes:
        try:
            return read_file(path, most=most)
        except OSError as error:
            parts = path.with_name(f"{WEIGHTS}.index.json").exists()
            raise SavedModelError(
                f"{self} is not a saved model: {path.name} cannot be read ({error.strerror}). A saved model is "
                f"{CONFIG} and {WEIGHTS}{', not an index of parts' if parts else ''}."
            ) from error

    def _parse_config(self, path: Path) -> dict[str, Any]:
        content = self._bytes(path, LARGEST_CONFIG + 1)
        if len(content) > LARGEST_CONFIG:
            raise SavedModelError(f"{path} has more than {LARGEST_CONFIG:,} bytes. It does not describe a network.")
        if self.remote and not is_intact(path, content):
            raise SavedModelError(f"{path} is damaged: it differs from the file on the Hub. Fetch it again.")
        try:
            saved = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SavedModelError(f"{path} is not JSON: {error}.") from error
        if not isinstance(saved, dict) or saved.get("library") != "imtrans":
            raise SavedModelError(_not_a_saved_model(path, saved))
        if "module" in saved:
            raise SavedModelError(self._foreign(path, saved))
        for key, kind in _KINDS.items():
            if not isinstance(saved.get(key), kind):
                raise SavedModelError(f"{path}: {key!r} must be a {kind.__name__}, got {short_repr(saved.get(key))}.")
        for key, value in saved.items():
            allowed = _OPTIONAL.get(key, ())
            if key not in _KINDS and allowed is not None and value not in allowed:
                raise SavedModelError(
                    f"{path} has an unknown entry {short_repr(key)}: "
                    f"{short_repr(value)}.{did_you_mean(key, {**_KINDS, **_OPTIONAL})} "
                    "It may come from a newer imtrans; update, or correct the file."
                )
        return saved


def _advice_on_name(name: str | PathLike[str]) -> str:
    path = Path(name)
    if str(name).startswith("junyanz/"):
        return "The names in imtrans.published_weights() are for load_pretrained."
    if not os.path.isfile(name):
        return f"Check the spelling.{similar_path(path)}"
    if path.suffix in (".pth", ".pt", ".ckpt", ".bin"):
        return f"A checkpoint of pytorch-CycleGAN-and-pix2pix becomes one: python -m imtrans.convert {path} FOLDER."
    return f"Give the folder of the file, {path.parent}."


def _not_a_saved_model(path: Path, saved: object) -> str:
    if not isinstance(saved, dict) or not {"method", "networks"} <= saved.keys():
        return f'{path} was not written by imtrans: it has no entry "library": "imtrans".'
    inside = [str(config.parent) for config in sorted(path.parent.glob(f"*/{CONFIG}"))]
    advice = f"Load a network in it: {join_names(inside)}" if inside else "It holds no saved network yet"
    return f"{path.parent} is the folder of a training run. {advice}."


def loading_code(module: str, name: str, weights: str) -> list[str]:
    """Return lines of code that load `weights` into a network of the class `name` of `module`."""
    outer = name.partition(".")[0]
    script = module == "__main__" or "<" in name
    found = f"# define {name} as in the training script" if script else f"from {module} import {outer}"
    return [
        "from safetensors.torch import load_file",
        found,
        f"network = {name.rpartition('>.')[2]}(...)  # with the arguments that it was built with",
        f"network.load_state_dict(load_file({json.dumps(weights)}))",
        "network.eval()",
    ]


def parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Read the content of a safetensors file. Raises a SavedModelError if it is damaged or has another format."""
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise SavedModelError(f"{path} is damaged or not a safetensors file: {one_line(str(error))}.") from error
