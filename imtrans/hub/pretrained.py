"""`Pretrained`, the base class of every network: saving, loading and uploading."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from imtrans.checks import at_least, check_bool, increasing_pair, one_of
from imtrans.colours import COLOUR_SPACES, Colour, check_palette
from imtrans.errors import ArgumentError, SavedModelError, counted, did_you_mean, join_names, one_line, short_repr
from imtrans.files import write_atomic
from imtrans.hub.adapt import adapt_channels
from imtrans.hub.client import push
from imtrans.hub.model_card import CARD, model_card
from imtrans.hub.saved_model import CONFIG, FLOATS, WEIGHTS, SavedModel, write_saved, writing
from imtrans.hub.structure import differences
from imtrans.modes import MODES
from imtrans.runtime import pick_device
from imtrans.version import __version__

P = TypeVar("P", bound="Pretrained")

_REBUILT: "WeakKeyDictionary[Pretrained, tuple[dict[str, Any], Pretrained]]" = WeakKeyDictionary()
_NAMED_FLOATS = {name: getattr(torch, name) for name in FLOATS}
_FLOATS = {*_NAMED_FLOATS.values()}


class Pretrained(nn.Module):
    """A network that keeps its arguments, and so can be saved and built again.

    The arguments of a subclass must be JSON values. A callable is allowed, but such a network cannot be saved.
    Arguments that a subclass takes as ``**kwargs`` are recorded by name. Arguments that it takes as ``*args`` have no
    names; a network with such arguments cannot be saved.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    config: dict[str, Any]
    """The arguments of this network, defaults included."""

    _inference_mode = "eval"
    _colours: str | None = None
    _palette: tuple[Colour, ...] | None = None
    _num_labels: int | None = None
    _instances = False
    _value_range: tuple[float, float] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Pretrained":
        """Record the arguments. If they do not fit the signature, ``__init__`` raises."""
        network = super().__new__(cls)
        with suppress(TypeError):
            signature = inspect.signature(cls.__init__)
            bound = signature.bind(network, *args, **kwargs)
            bound.apply_defaults()
            network.config = {}
            for name, value in list(bound.arguments.items())[1:]:
                kind = signature.parameters[name].kind
                if kind is inspect.Parameter.VAR_KEYWORD:
                    network.config |= {key: _frozen(entry) for key, entry in value.items()}
                elif kind is not inspect.Parameter.VAR_POSITIONAL:
                    network.config[name] = _frozen(value)
                elif value:
                    network.config[f"*{name}"] = _frozen(value)
        return network

    @property
    def inference_mode(self) -> str:
        """Mode of inference, ``"eval" | "batch_stats" | "paper"``: see `imtrans.modes.running_as`. Saved."""
        return self._inference_mode

    @inference_mode.setter
    def inference_mode(self, mode: str) -> None:
        self._inference_mode = one_of(type(self).__name__, "inference_mode", mode, MODES)

    @property
    def colours(self) -> str | None:
        """Meaning of the channels: None for images, ``"lab"`` or ``"rgba"``. Saved.

        - A ``"lab"`` network maps lightness (1 channel) to a and b (2 channels), scaled as `imtrans.colours.split_lab`
          does. `imtrans.translate` joins them to an image.
        - An ``"rgba"`` network maps an image with transparent holes (4 channels, see `imtrans.colours.split_holes`) to
          RGB. `imtrans.translate` takes from it only the holes.
        """
        return self._colours

    @colours.setter
    def colours(self, colours: str | None) -> None:
        if colours is not None:
            owner, sides = type(self).__name__, ("in_channels", "out_channels")
            found = [self.config.get(side, getattr(self, side, None)) for side in sides]
            space = COLOUR_SPACES[one_of(owner, "colours", colours, COLOUR_SPACES)]
            if found != [len(space.source), len(space.target)]:
                raise ArgumentError(
                    f"{owner}: colours={colours!r} is for a network from {counted(len(space.source), 'channel')} "
                    f"({' and '.join(space.source)}) to {len(space.target)} ({' and '.join(space.target)}), and this "
                    f"one has in_channels={found[0]}, out_channels={found[1]}. Build it with {len(space.source)} and "
                    f"{len(space.target)}."
                )
        self._colours = colours

    @property
    def palette(self) -> tuple[Colour, ...] | None:
        """Colours of the label maps that the network takes as one-hot channels, one for each class; or None. Saved.

        `imtrans.translate` converts a label map in these colours. A palette is set as for
        `imtrans.colours.check_palette`.
        """
        return self._palette

    @palette.setter
    def palette(self, palette: object) -> None:
        if palette is not None:
            palette = check_palette(type(self).__name__, palette)
            self._check_labels(f"a palette of {counted(len(palette), 'colour')}", len(palette))
        self._palette = palette

    @property
    def num_labels(self) -> int | None:
        """Number of classes of the maps of class ids that the network takes as one-hot channels; or None. Saved.

        `imtrans.translate` converts a map of ids.
        """
        return self._num_labels

    @num_labels.setter
    def num_labels(self, num_labels: int | None) -> None:
        if num_labels is not None:
            at_least(type(self).__name__, "num_labels", num_labels, 1, 256)
            self._check_labels(f"num_labels={num_labels}", num_labels)
        self._num_labels = num_labels

    @property
    def instances(self) -> bool:
        """Whether the edges of instances are the last input channel, after a channel for each class. Saved.

        `imtrans.translate` computes them. Set it before `palette` or `num_labels`.
        """
        return self._instances

    @instances.setter
    def instances(self, instances: bool) -> None:
        check_bool(type(self).__name__, "instances", instances)
        self._instances = instances

    def _check_labels(self, labels: str, count: int) -> None:
        """Raise an ArgumentError if the network does not take `count` classes, and the edges of instances."""
        found, wanted = self.config.get("in_channels"), count + self.instances
        if found != wanted:
            raise ArgumentError(
                f"{type(self).__name__}: {labels}{' with edges of instances' if self.instances else ''} is for a "
                f"network with in_channels={wanted}, and this one has in_channels={found}. Build it with "
                f"in_channels={wanted}."
            )

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values ``(low, high)`` of images of more than 8 bits that the network takes as -1 and 1; or None. Saved.

        `imtrans.translate` scales such images from this range, and its outputs to it.
        """
        return self._value_range

    @value_range.setter
    def value_range(self, value_range: object) -> None:
        if value_range is not None:
            value_range = increasing_pair(type(self).__name__, "value_range", value_range)
        self._value_range = value_range

    @classmethod
    def preset(cls: type[P], name: str, *args: Any, **kwargs: Any) -> P:
        """Build the network that another implementation calls `name`: a key of the class's ``presets``.

        Positional arguments go to the class; keyword arguments override the preset.

        Raises:
            ArgumentError: no such preset.
        """
        return cls(*args, **{**cls.presets[one_of(cls.__name__, "preset", name, cls.presets)], **kwargs})

    def save_pretrained(self, folder: str | PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors`` to `folder`, which may be new.

        Args:
            folder: where to write.
            dtype: type of the floating-point weights in the file, for example ``torch.float16`` for half the size.
                ``config.json`` then names the network's own type, in which `from_pretrained` loads the rounded
                weights. None writes and loads the network's own type.

        Raises:
            SavedModelError: the network cannot be described, see `description`, or the folder cannot be written.
            ArgumentError: a `dtype` that is not a floating-point type or too small for a weight, or weights of several
                types.
        """
        description, tensors = self.description(), self.state_dict()
        if dtype is not None:
            description["dtype"], tensors = _rounded(type(self).__name__, tensors, dtype)
        write_saved(Path(folder), description, tensors)

    def description(self) -> dict[str, Any]:
        """Return the content of ``config.json``, from which the network can be built.

        The network is built from it once on the meta device, and compared with this one; see
        `imtrans.hub.structure.differences`.

        Raises:
            SavedModelError: an argument was a callable, or the network was changed after it was built.
        """
        arguments = {name: self._as_json(name, value) for name, value in self.config.items()}
        self._check_rebuilt(arguments)
        described: dict[str, Any] = {
            "library": "imtrans",
            "version": __version__,
            "class": self._class().__name__,
            "arguments": arguments,
            "inference_mode": self.inference_mode,
        }
        if self.colours is not None:
            described["colours"] = self.colours
        if self.palette is not None:
            described["palette"] = [list(colour) for colour in self.palette]
        if self.num_labels is not None:
            described["num_labels"] = self.num_labels
        if self.instances:
            described["instances"] = True
        if self.value_range is not None:
            described["value_range"] = list(self.value_range)
        # `is_contiguous` does not distinguish the formats of a 1x1 kernel, but a convolution does.
        other = [p for p in self.parameters() if p.stride() != torch.empty(p.shape, device="meta").stride()]
        if any(p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) for p in other):
            described["memory_format"] = "channels_last"
        return described

    def _class(self) -> "type[Pretrained]":
        return cast(type[Pretrained], parametrize.type_before_parametrizations(self))

    def _check_rebuilt(self, arguments: dict[str, Any]) -> None:
        """Raise a SavedModelError unless the class and `arguments` give this network."""
        cls = self._class()
        if any(base.__name__ == cls.__name__ for base in cls.__mro__[1:]):
            raise SavedModelError(
                f"{cls.__name__}: this class cannot be saved, because a class that it derives from has the same name, "
                f"and {CONFIG} names only one of them. Give it a name of its own."
            )
        rebuilt = self._rebuilt(arguments)
        found = list(differences(self, rebuilt))
        tensors, expected = self.state_dict().keys(), rebuilt.state_dict().keys()
        if not found and tensors == expected:
            return
        parts = [f"{each.where} is {each.found}, but they give {each.expected}" for each in found[:3]]
        parts = parts or [f"its state dict has other keys, {join_names(sorted(tensors ^ expected))}"]
        more = f" And {counted(len(found) - 3, 'more difference')}." if len(found) > 3 else ""
        raise SavedModelError(
            f"{cls.__name__}: the network differs from its description, {CONFIG}, which holds only the class and its "
            f"arguments: {'; '.join(parts)}.{more} Build the network with arguments that give this, or make the change "
            "in the __init__ of a subclass and save that, or undo it (hooks: handle.remove()), or save the tensors "
            "with safetensors.torch.save_model(network, path) and change the network again after loading."
        )

    def _rebuilt(self, arguments: dict[str, Any]) -> "Pretrained":
        """Build the network from `arguments` on the meta device, once for the same arguments."""
        if self not in _REBUILT or _REBUILT[self][0] != arguments:
            cls = self._class()
            try:
                with torch.device("meta"), torch.random.fork_rng([]):
                    _REBUILT[self] = arguments, cls(**arguments)
            except Exception as error:  # the __init__ of a subclass can raise any
                raise SavedModelError(
                    f"{cls.__name__}: the network cannot be saved, because its class cannot be built again from its "
                    f"arguments {short_repr(arguments)} on the meta device: {one_line(str(error))} Correct its "
                    "__init__, or save the tensors with safetensors.torch.save_model(network, path)."
                ) from error
        return _REBUILT[self][1]

    def _as_json(self, name: str, value: Any) -> Any:
        if name.startswith("*"):
            raise SavedModelError(
                f"{type(self).__name__}: the arguments {name}={short_repr(value)} cannot be saved, because they have "
                "no names. Pass them by name, or give the parameters of __init__ names."
            )
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [self._as_json(name, entry) for entry in value]
        raise SavedModelError(
            f"{type(self).__name__}: {name}={value!r} cannot be saved, because config.json holds only numbers, strings "
            f"and lists. Build the network with a name, or save its tensors with "
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
        """Upload the network and a model card to a repo on the Hub. Returns the address of the repo.

        There is no commit if the repo has the same files already.

        Args:
            repo_id: ``"user/repo"``, which may be new.
            revision: branch; None is the main branch.
            token: access token of an account that may write; None is the token of the Hub's own login.
            private: whether a new repo is private; None is the default of the account.
            message: commit message.
            training: names and values that describe the training, for the card.

        Raises:
            SavedModelError: the network cannot be described, see `description`.
            HubError: the Hub cannot be reached, or refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            card = model_card(repo_id, self.description(), self.num_parameters(), training=training)
            with writing(Path(folder)):
                write_atomic(Path(folder, CARD), card.encode())
            return push(Path(folder), repo_id, revision=revision, token=token, private=private, message=message)

    def num_parameters(self) -> int:
        """Number of elements of all parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(
        cls: type[P],
        name: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        subfolder: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        in_channels: int | None = None,
        out_channels: int | None = None,
    ) -> P:
        """Load a saved network, in evaluation mode.

        ``config.json`` is checked before memory is allocated, and the weights are compared with the digest in it. No
        code from the repo is run.

        Args:
            name: a folder, or ``"user/repo"`` on the Hub if there is no such folder.
            revision: branch, tag or commit of the repo.
            token: access token of an account that may read the repo.
            subfolder: subfolder of the folder or repo.
            device: device to load to, see `imtrans.runtime.pick_device`; None is the CPU.
            dtype: type of floating-point weights; None for the type in the file, or the one that ``config.json`` names.
            in_channels: another number of input channels than the saved network has. The first convolution is adapted,
                see `imtrans.hub.adapt.adapt_channels`; the new number is in the network's `config`.
            out_channels: another number of output channels; the last convolution is adapted.

        Raises:
            SavedModelError: the files are damaged, hold another network than a `cls`, or cannot be adapted.
            HubError: the repo cannot be fetched.
            ArgumentError: a device, dtype or number of channels that is not allowed.
        """
        saved = SavedModel(name, revision, token, subfolder)
        return cls.from_saved(
            saved, saved.config(), device=device, dtype=dtype, in_channels=in_channels, out_channels=out_channels
        )

    @classmethod
    def from_saved(
        cls: type[P],
        saved: SavedModel,
        config: dict[str, Any],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        in_channels: int | None = None,
        out_channels: int | None = None,
    ) -> P:
        """Build the network of `saved`, whose ``config.json`` holds `config`; see `from_pretrained`."""
        target = None if device is None else pick_device(device)
        if dtype is not None:
            _check_dtype(cls.__name__, dtype)
        elif "dtype" in config:
            dtype = _NAMED_FLOATS[config["dtype"]]
        if config["class"] != cls.__name__:
            kind = one_line(config["class"], 100)
            raise SavedModelError(
                f"{cls.__name__}: {saved} holds a {kind}. Use {kind}.from_pretrained, or load_pretrained, which picks "
                "the class."
            )
        network = cls._from_arguments(saved, config["arguments"])
        try:
            network.inference_mode, network.colours = config["inference_mode"], config.get("colours")
            network.instances, network.value_range = config.get("instances", False), config.get("value_range")
            network.palette, network.num_labels = config.get("palette"), config.get("num_labels")
        except ArgumentError as error:
            raise SavedModelError(f"{saved}: {CONFIG} does not describe a network. {error}") from error
        tensors = saved.tensors(config["sha256"])
        network._check_fit(saved, tensors)
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        if changes := {name: count for name, count in channels.items() if count is not None}:
            network, tensors = network._adapted(changes, tensors)
        network.load_state_dict(tensors, strict=True, assign=True)
        if any(buffer.is_meta for buffer in network.buffers()):
            # Buffers that are not saved are computed by ``__init__``, off the meta device. The weights fit, so the
            # network is as large as its file.
            computed = cls(**{**config["arguments"], **changes})
            computed.load_state_dict(tensors, strict=True, assign=True)
            computed.inference_mode, computed.colours = network.inference_mode, network.colours
            computed.instances, computed.value_range = network.instances, network.value_range
            computed.palette, computed.num_labels = network.palette, network.num_labels
            network = computed
        if config.get("memory_format") == "channels_last":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.to(target, dtype).eval()

    def _adapted(self: P, changes: dict[str, int], tensors: dict[str, Tensor]) -> tuple[P, dict[str, Tensor]]:
        """Return this network on the meta device with other numbers of channels, and `tensors` adapted to them."""
        cls = type(self)
        parameters = inspect.signature(cls.__init__).parameters
        for name in changes:
            if name not in parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                raise ArgumentError(f"{cls.__name__}: the class has no argument {name}. Leave {name} out.")
        with torch.device("meta"):
            network = cls(**{**self.config, **changes})
        ends = {
            name: tuple(each.config.get(name, getattr(each, name, 1)) for each in (self, network))
            for name in ("in_channels", "out_channels")
        }
        if self.colours is not None and any(old != new for old, new in ends.values()):
            raise ArgumentError(
                f"{cls.__name__}: the channels of a network with colours={self.colours!r} have a fixed meaning. Leave "
                "in_channels and out_channels out."
            )
        network.inference_mode, network.colours = self.inference_mode, self.colours
        network.value_range = self.value_range
        inputs, outputs = ends["in_channels"], ends["out_channels"]
        return network, adapt_channels(self, network, tensors, inputs=inputs, outputs=outputs)

    @classmethod
    def _from_arguments(cls: type[P], saved: SavedModel, arguments: dict[str, Any]) -> P:
        """Build the network on the meta device, where it takes no memory."""
        parameters = inspect.signature(cls.__init__).parameters
        known, kinds = list(parameters)[1:], {parameter.kind for parameter in parameters.values()}
        for name in arguments:
            if name not in known and inspect.Parameter.VAR_KEYWORD not in kinds:
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
                f"{cls.__name__}: {CONFIG} of {saved} does not describe a network. {one_line(str(error))}"
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


def _check_dtype(owner: str, dtype: object) -> None:
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentError(
            f"{owner}: dtype={dtype!r} is not a floating-point type. Use torch.float32, torch.float16 or "
            "torch.bfloat16."
        )


def _rounded(owner: str, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the type of the floating-point `tensors`, and the tensors with these rounded to `dtype`."""
    _check_dtype(owner, dtype)
    floats = {str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()}
    own = sorted(name.removeprefix("torch.") for name in floats)
    if len(own) != 1:
        raise ArgumentError(
            f"{owner}: dtype is for networks with weights of one floating-point type, and this one has "
            f"{join_names(own) or 'none'}. Leave dtype out."
        )
    rounded = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if lost := [name for name, tensor in rounded.items() if (tensor.isinf() & tensors[name].isfinite()).any()]:
        raise ArgumentError(
            f"{owner}: {join_names(lost)} has values that are too large for {dtype}. Use torch.bfloat16, or leave "
            "dtype out."
        )
    return own[0], rounded


def _frozen(value: Any) -> Any:
    """Convert lists to tuples, so that a later change of the caller's list does not change the config."""
    return tuple(_frozen(entry) for entry in value) if isinstance(value, (list, tuple)) else value
