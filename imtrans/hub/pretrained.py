"""What every network inherits: its description, and saving and loading by it."""

import inspect
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from imtrans.checks import one_of
from imtrans.colours import COLOUR_SPACES
from imtrans.errors import ArgumentError, SavedModelError, did_you_mean, join_names, one_line, short_repr
from imtrans.files import write_atomic
from imtrans.hub.client import push
from imtrans.hub.model_card import CARD, model_card
from imtrans.hub.saved_model import CONFIG, WEIGHTS, SavedModel, write_saved, writing
from imtrans.modes import MODES
from imtrans.version import __version__

P = TypeVar("P", bound="Pretrained")

_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


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
        object.__setattr__(network, "_colours", None)
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

    @property
    def colours(self) -> str | None:
        """What the channels stand for; saved with the network.

        None: those of pictures. ``"lab"``: the network gives colours to grey pictures, from lightness (1 channel) to
        a and b (2 channels), scaled as `imtrans.colours.split_lab` does. `imtrans.translate` puts them together.
        """
        colours: str | None = self.__dict__["_colours"]
        return colours

    @colours.setter
    def colours(self, colours: str | None) -> None:
        if colours is not None:
            owner, found = type(self).__name__, [self.config.get(f"{side}_channels") for side in ("in", "out")]
            space = COLOUR_SPACES[one_of(owner, "colours", colours, COLOUR_SPACES)]
            if found != [len(space.source), len(space.target)]:
                raise ArgumentError(
                    f"{owner}: colours={colours!r} is for a network from {len(space.source)} channel "
                    f"({' and '.join(space.source)}) to {len(space.target)} ({' and '.join(space.target)}), and this "
                    f"one has in_channels={found[0]}, out_channels={found[1]}. Build it with {len(space.source)} and "
                    f"{len(space.target)}."
                )
        object.__setattr__(self, "_colours", colours)

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
            SavedModelError: an argument of the network was a callable, which no file can hold; or the folder cannot be
                written.
        """
        write_saved(Path(folder), self.description(), self.state_dict())

    def description(self) -> dict[str, Any]:
        """What ``config.json`` says of the network: all that is needed to make it again but its weights.

        Raises:
            SavedModelError: an argument was a callable.
        """
        described = {
            "library": "imtrans",
            "version": __version__,
            "class": type(self).__name__,
            "arguments": {name: self._as_json(name, value) for name, value in self.config.items()},
            "inference_mode": self.inference_mode,
        }
        if self.colours is not None:
            described["colours"] = self.colours
        # `is_contiguous` cannot tell the formats of a 1x1 kernel apart, but a convolution does.
        other = [p for p in self.parameters() if p.stride() != torch.empty(p.shape, device="meta").stride()]
        if any(p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) for p in other):
            described["memory_format"] = "channels_last"
        return described

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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        message: str = "Upload with imtrans",
        training: Mapping[str, Any] | None = None,
    ) -> str:
        """Save the network to a repo on the Hub, with a model card; return the repo's address.

        A push of what is there already makes no commit.

        Args:
            repo_id: ``"user/repo"``; made if need be.
            revision: the branch; the main one if None.
            token: of an account that may write; if None, the one that the Hub's own login stored.
            private: whether a new repo is private; None for the account's default.
            message: of the commit.
            training: how it was trained, names and values, for the card.

        Raises:
            SavedModelError: an argument of the network was a callable.
            HubError: the Hub cannot be reached, or refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            card = model_card(repo_id, self.description(), self.num_parameters(), training=training)
            with writing(Path(folder)):
                write_atomic(Path(folder, CARD), card.encode())
            return push(Path(folder), repo_id, revision=revision, token=token, private=private, message=message)

    def num_parameters(self) -> int:
        """How many numbers training can change."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(
        cls: type[P],
        name: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        subfolder: str | None = None,
    ) -> P:
        """Make a saved network, with its weights, in evaluation mode, on the CPU.

        The description is checked before anything is allocated, the weights against the digest in it. Nothing from a
        repo is run.

        Args:
            name: a folder, or ``"user/repo"`` on the Hub where there is no such folder.
            revision: a branch, tag or commit of the repo.
            token: of an account that may read the repo.
            subfolder: of the folder or the repo.

        Raises:
            SavedModelError: what is there is not a saved `cls`, or is damaged.
            HubError: the repo cannot be had.
        """
        saved = SavedModel(name, revision, token, subfolder)
        return cls.from_saved(saved, saved.config())

    @classmethod
    def from_saved(cls: type[P], saved: SavedModel, config: dict[str, Any]) -> P:
        """Make the network that `saved`, whose description is `config`, holds; see `from_pretrained`."""
        if config["class"] != cls.__name__:
            kind = one_line(config["class"], 100)
            raise SavedModelError(
                f"{cls.__name__}: {saved} holds a {kind}. Use {kind}.from_pretrained, or load_pretrained, which picks "
                "the class."
            )
        network = cls._from_arguments(saved, config["arguments"])
        try:
            network.inference_mode, network.colours = config["inference_mode"], config.get("colours")
        except ArgumentError as error:
            raise SavedModelError(f"{saved}: {CONFIG} does not describe one. {error}") from error
        tensors = saved.tensors(config["sha256"])
        network._check_fit(saved, tensors)
        network.load_state_dict(tensors, strict=True, assign=True)
        if any(buffer.is_meta for buffer in network.buffers()):
            # What is not saved must be computed, which takes memory: no more than the weights let expect.
            computed = cls(**config["arguments"])
            computed.load_state_dict(tensors, strict=True, assign=True)
            computed.inference_mode, computed.colours = network.inference_mode, network.colours
            network = computed
        if config.get("memory_format") == "channels_last":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval()

    @classmethod
    def _from_arguments(cls: type[P], saved: SavedModel, arguments: dict[str, Any]) -> P:
        """Make the network on the meta device, where it takes no memory, however large it says it is."""
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        for name in arguments:
            if name not in known:
                raise SavedModelError(
                    f"{cls.__name__}: {CONFIG} of {saved} has an unknown argument "
                    f"{short_repr(name)}.{did_you_mean(name, known)} "
                    "It may come from a newer imtrans; update, or correct the file."
                )
        try:
            with torch.device("meta"):
                return cls(**arguments)
        except (ArgumentError, TypeError, RuntimeError, ValueError, OverflowError) as error:
            raise SavedModelError(
                f"{cls.__name__}: {CONFIG} of {saved} does not describe one. {one_line(str(error))}"
            ) from error

    def _check_fit(self, saved: SavedModel, found: Mapping[str, Tensor]) -> None:
        owner, wanted = f"{type(self).__name__}: {WEIGHTS} of {saved}", self.state_dict()
        if missing := sorted(wanted.keys() - found.keys()):
            raise SavedModelError(f"{owner} lacks {join_names(missing)}.")
        if unknown := sorted(found.keys() - wanted.keys()):
            raise SavedModelError(f"{owner} has tensors that the network does not: {join_names(unknown)}.")
        for name, tensor in wanted.items():
            if tensor.shape != found[name].shape:
                raise SavedModelError(
                    f"{owner} has {name} in shape {short_repr(tuple(found[name].shape))}, {CONFIG} asks for "
                    f"{tuple(tensor.shape)}."
                )
            if found[name].dtype != tensor.dtype and {found[name].dtype, tensor.dtype} - _FLOATS:
                raise SavedModelError(
                    f"{owner} has {name} of type {found[name].dtype}, the network's is {tensor.dtype}."
                )


def _frozen(value: Any) -> Any:
    """Lists as tuples: what the caller does to a list later does not change what a network was made with."""
    return tuple(_frozen(entry) for entry in value) if isinstance(value, (list, tuple)) else value
