"""Comparison of two networks by what they compute: modules, settings, hooks, and the shapes of their tensors."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from imtrans.errors import one_line, short_repr
from imtrans.modes import settings_of

_NOT_COMPARED = ("training", "inplace", "config")
_ABSENT = "nothing"


class Difference(NamedTuple):
    """A part of a network, the form that it has, and the form in the other network."""

    where: str
    found: str
    expected: str


def differences(network: nn.Module, expected: nn.Module, path: str = "") -> Iterator[Difference]:
    """Yield the differences between two networks that may change what they compute.

    Compared are classes, children and their order, public attributes that `expected` has, replaced methods, forward
    hooks, parametrizations, and the names and shapes of parameters and buffers. Not compared are values, dtypes and
    devices of tensors, ``requires_grad``, training mode, ``inplace``, buffers that are not saved, private attributes,
    and whether a batch norm shares its statistics with other processes.
    """
    prefix = f"{path}." if path else ""
    if _kind(network) != _kind(expected):
        yield Difference(path or "the network", _shown(network), _shown(expected))
        return
    yield from _setting_differences(network, expected, prefix)
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        hooks, expected_hooks = (_names(getattr(module, kind)) for module in (network, expected))
        if hooks != expected_hooks:
            yield Difference(f"{prefix}{kind}", hooks or _ABSENT, expected_hooks or _ABSENT)
    yield from _child_differences(network, expected, path)
    shapes, expected_shapes = _shapes(network), _shapes(expected)
    for name in {**expected_shapes, **shapes}:
        found, wanted = shapes.get(name, _ABSENT), expected_shapes.get(name, _ABSENT)
        if found != wanted:
            yield Difference(prefix + name, found, wanted)


def _setting_differences(network: nn.Module, expected: nn.Module, prefix: str) -> Iterator[Difference]:
    settings = settings_of(network)
    for name, value in vars(expected).items():
        if not name.startswith("_") and name not in _NOT_COMPARED and name in settings:
            found = settings[name]
            if _comparable(found) != _comparable(value):
                yield Difference(prefix + name, short_repr(found), short_repr(value))
    for name, value in settings.items():
        replaced = callable(value) and not name.startswith("_") and callable(getattr(type(network), name, None))
        if replaced and name not in vars(expected):
            yield Difference(prefix + name, short_repr(value), "the method of the class")


def _child_differences(network: nn.Module, expected: nn.Module, path: str) -> Iterator[Difference]:
    children, wanted, prefix = network._modules, expected._modules, f"{path}." if path else ""
    for name in {**wanted, **children}:
        child, expected_child = children.get(name), wanted.get(name)
        if child is not None and expected_child is not None:
            yield from differences(child, expected_child, prefix + name)
        elif child is not expected_child:
            yield Difference(prefix + name, _shown(child), _shown(expected_child))
    if list(children) != list(wanted) and children.keys() == wanted.keys():
        yield Difference(path or "the network", f"in the order {', '.join(children)}", f"the order {', '.join(wanted)}")


def _kind(module: nn.Module) -> tuple[str, str]:
    """Class of a module by name, so that a class that was defined again is the same."""
    cls = parametrize.type_before_parametrizations(module)
    cls = getattr(cls, "computes_as", cls)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)) and (
        cls.__module__ == nn.BatchNorm2d.__module__
    ):
        cls = nn.modules.batchnorm._BatchNorm
    return cls.__module__, cls.__qualname__


def _shown(module: nn.Module | None) -> str:
    return _ABSENT if module is None else one_line(repr(module), 100)


def _names(hooks: dict[int, Any]) -> str:
    return ", ".join(getattr(hook, "__qualname__", type(hook).__qualname__) for hook in hooks.values())


def _shapes(module: nn.Module) -> dict[str, str]:
    """Shapes of the tensors of the module itself that are saved."""
    unsaved = module._non_persistent_buffers_set
    tensors = {**module._parameters, **{name: b for name, b in module._buffers.items() if name not in unsaved}}
    return {name: f"a tensor of shape {tuple(t.shape)}" for name, t in tensors.items() if t is not None}


def _comparable(value: Any) -> Any:
    """A form of `value` that can be compared: the value, its name, its shape, or its class."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return "nan" if value != value else value
    if isinstance(value, (list, tuple)):
        return tuple(map(_comparable, value))
    if isinstance(value, dict):
        return {key: _comparable(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset)):
        return frozenset(map(_comparable, value))
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, partial):
        return _comparable([value.func, value.args, value.keywords])
    named = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
