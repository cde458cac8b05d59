"""What every network inherits: its description, and saving and loading by it."""

import inspect
import json
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from imtrans.errors import ArgumentError, SavedModelError, hint, one_of, some_of
from imtrans.files import write_json, write_tensors
from imtrans.modes import MODES
from imtrans.version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"
P = TypeVar("P", bound="Pretrained")


class Pretrained(nn.Module):
    """A network that knows the arguments it was made with, and so can be saved and made again.

    A subclass needs nothing but arguments that JSON can hold, or callables, with which it cannot be saved.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    config: dict[str, Any]
    """The arguments this network was made with, defaults included."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Pretrained":
        """Note the arguments; where they do not fit, ``__init__`` says so."""
        network = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            bound = signature.bind(network, *args, **kwargs)
        except TypeError:
            return network
        bound.apply_defaults()
        given = list(bound.arguments.items())[1:]
        object.__setattr__(network, "config", {name: _frozen(value) for name, value in given})
        object.__setattr__(network, "_inference_mode", "eval")
        return network

    @property
    def inference_mode(self) -> str:
        """How the network is meant to be run: ``"eval" | "batch_stats" | "paper"``; saved with it.

        See `imtrans.modes.running_as`.
        """
        mode: str = self.__dict__["_inference_mode"]
        return mode

    @inference_mode.setter
    def inference_mode(self, mode: str) -> None:
        object.__setattr__(self, "_inference_mode", one_of(type(self).__name__, "inference_mode", mode, MODES))

    @classmethod
    def preset(cls: type[P], name: str, *args: Any, **kwargs: Any) -> P:
        """Make the network that another system builds under `name`; see the class's ``presets``.

        Args:
            name: of the preset.
            *args: the positional arguments of the class.
            **kwargs: further ones; they go before those of the preset.

        Raises:
            ArgumentError: no such preset.
        """
        return cls(*args, **{**cls.presets[one_of(cls.__name__, "preset", name, cls.presets)], **kwargs})

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` to `folder`, which is made if need be.

        Raises:
            SavedModelError: an argument of the network was a callable, which no file can hold.
        """
        folder = Path(folder)
        arguments = {name: self._as_json(name, value) for name, value in self.config.items()}
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, self.state_dict())
        description = {
            "library": "imtrans",
            "version": __version__,
            "class": type(self).__name__,
            "arguments": arguments,
            "inference_mode": self.inference_mode,
        }
        write_json(folder / CONFIG, description)

    def _as_json(self, name: str, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [self._as_json(name, entry) for entry in value]
        owner = type(self).__name__
        raise SavedModelError(
            f"{owner}: {name}={value!r} cannot be saved, because config.json holds only numbers, names and "
            f"lists of them. Build the network with a name, or save its tensors with "
            f"safetensors.torch.save_model(network, path) and build it again with the same {name}."
        )

    @classmethod
    def from_pretrained(cls: type[P], folder: str | PathLike[str]) -> P:
        """Make the network that `folder` holds, with its weights, in evaluation mode, on the CPU.

        Raises:
            SavedModelError: the folder, its files or their contents are not those of a saved `cls`.
        """
        folder = Path(folder)
        saved = read_config(folder)
        if saved["class"] != cls.__name__:
            raise SavedModelError(
                f"{cls.__name__}: {folder} holds a {saved['class']}. Use {saved['class']}.from_pretrained, or "
                "load_pretrained, which picks the class."
            )
        network = cls._from_arguments(folder, saved["arguments"])
        try:
            network.inference_mode = saved["inference_mode"]
        except ArgumentError as error:
            raise SavedModelError(f"{folder / CONFIG}: {error}") from error
        network._load_strictly(folder / WEIGHTS)
        return network.eval()

    @classmethod
    def _from_arguments(cls: type[P], folder: Path, arguments: dict[str, Any]) -> P:
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        for name in arguments:
            if name not in known:
                raise SavedModelError(
                    f"{cls.__name__}: {folder / CONFIG} has an unknown argument {name!r}.{hint(name, known)} "
                    "It may come from a newer imtrans; update, or correct the file."
                )
        try:
            return cls(**arguments)
        except (ArgumentError, TypeError, RuntimeError) as error:
            raise SavedModelError(f"{cls.__name__}: {folder / CONFIG} does not describe one. {error}") from error

    def _load_strictly(self, path: Path) -> None:
        owner = type(self).__name__
        found, wanted = read_tensors(path), self.state_dict()
        if missing := sorted(wanted.keys() - found.keys()):
            raise SavedModelError(f"{owner}: {path} lacks {some_of(missing)}.")
        if unknown := sorted(found.keys() - wanted.keys()):
            raise SavedModelError(f"{owner}: {path} has tensors that the network does not: {some_of(unknown)}.")
        for name, tensor in wanted.items():
            if tensor.shape != found[name].shape:
                raise SavedModelError(
                    f"{owner}: {path} has {name} in shape {tuple(found[name].shape)}, config.json asks for "
                    f"{tuple(tensor.shape)}."
                )
            if tensor.is_floating_point() != found[name].is_floating_point():
                raise SavedModelError(
                    f"{owner}: {path} has {name} of type {found[name].dtype}, the network's is {tensor.dtype}."
                )
        self.load_state_dict(found, strict=True, assign=True)


def _frozen(value: Any) -> Any:
    """Lists as tuples: what the caller does to a list later does not change what a network was made with."""
    return tuple(_frozen(entry) for entry in value) if isinstance(value, (list, tuple)) else value


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the description that `Pretrained.save_pretrained` wrote.

    Raises:
        SavedModelError: there is none, or it is not one of ours.
    """
    path = folder / CONFIG
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SavedModelError(
            f"{folder} is no saved model: {CONFIG} cannot be read ({error.strerror}). A saved model is a folder "
            f"with {CONFIG} and {WEIGHTS}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise SavedModelError(f"{path} is not JSON: {error}.") from error
    kinds = {"library": str, "version": str, "class": str, "arguments": dict, "inference_mode": str}
    if not isinstance(saved, dict) or saved.get("library") != "imtrans":
        raise SavedModelError(f'{path} was not written by imtrans: it does not say "library": "imtrans".')
    for key, kind in kinds.items():
        if not isinstance(saved.get(key), kind):
            raise SavedModelError(f"{path}: {key!r} must be a {kind.__name__}, got {saved.get(key)!r}.")
    return saved


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory of its own (a map of the file dies with the file).

    Raises:
        SavedModelError: it cannot be read, or is no safetensors file.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise SavedModelError(f"{path} cannot be read: {error.strerror}.") from error
    except SafetensorError as error:
        raise SavedModelError(f"{path} is damaged or no safetensors file: {error}.") from error
