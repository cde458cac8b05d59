"""The pickles of state dicts, followed by hand: nothing is imported, and nothing is called.

PyTorch's own safe reader runs no code either, but makes a byte array of any length that a file asks for, and sets any
attribute. Here an instruction that makes no part of a state dict is an error.
"""

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

# What one byte of a pickle makes takes up to a hundred; a network of a thousand tensors takes 40,000 instructions.
MOST_INSTRUCTIONS = 200_000
MOST_AXES = 8
DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
NOT_PLAIN = "a tensor that is no plain array of real numbers. No network has such."


class Refused(Exception):  # noqa: N818
    """What the file holds; it is well formed."""


class _Mark:
    """Where a tuple, or the entries of a list or a dict, begin on the stack."""


class _Import(NamedTuple):
    """Something that the pickle would import."""

    name: str


class Storage(NamedTuple):
    """Where the numbers of tensors are: the name of a record in the file, and how many they are."""

    dtype: torch.dtype
    key: str
    length: int

    @property
    def nbytes(self) -> int:
        return self.length * self.dtype.itemsize


@dataclass
class View:
    """A tensor, before its storage has been read."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError("a size, a stride or an offset is no whole number >= 0")
        if len(self.size) != len(self.stride) or len(self.size) > MOST_AXES:
            raise ValueError("the axes do not fit")

    @property
    def numel(self) -> int:
        return math.prod(self.size)

    def of(self, content: bytearray) -> Tensor:
        """The tensor in its storage's bytes."""
        whole = (
            torch.frombuffer(content, dtype=self.storage.dtype) if content else torch.empty(0).to(self.storage.dtype)
        )
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True)) if self.numel else 0
        if last >= max(1, len(whole)):
            raise ValueError("a tensor goes beyond its storage")
        return whole.as_strided(self.size, self.stride, self.offset if self.numel else 0)


def unpickle(file: io.BytesIO) -> Any:
    """Read a pickle, of which only the instructions that make a state dict are known."""
    machine = _Machine()
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if count == MOST_INSTRUCTIONS:
            raise ValueError("no pickle of a state dict is as long")
        machine.take(instruction.name, argument)
    (found,) = machine.stack
    return found


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def take(self, name: str, argument: Any) -> None:
        """Follow one instruction.

        Raises:
            KeyError: it is not one that makes a state dict.
        """
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _TUPLES:
            self.stack.append(tuple([self.stack.pop() for _ in range(_TUPLES[name])][::-1]))
        else:
            _OTHERS[name](self, argument)

    def nothing(self, argument: Any) -> None:
        """Begin and end."""

    def name(self, argument: str) -> None:
        self.stack.append(_Import(argument.replace(" ", ".")))

    def keep(self, argument: int) -> None:
        self.memory[argument] = self.stack[-1]

    def recall(self, argument: int) -> None:
        self.stack.append(self.memory[argument])

    def build(self, argument: Any) -> None:
        """Pass over the attributes of a state dict: the versions of its modules."""
        self.stack.pop()

    def call(self, argument: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_make(called.name, arguments))

    def refer(self, argument: Any) -> None:
        kind, dtype, key, _, length, *view = self.stack.pop()
        if kind != "storage" or type(key) is not str or type(length) is not int or length < 0 or any(view):
            raise ValueError("no storage")
        if dtype.name not in DTYPES:
            raise Refused(f"holds {NOT_PLAIN}")
        self.stack.append(Storage(DTYPES[dtype.name], key, length))

    def from_mark(self) -> list[Any]:
        found = []
        while not isinstance(value := self.stack.pop(), _Mark):
            found.append(value)
        return found[::-1]

    def make_tuple(self, argument: Any) -> None:
        self.stack.append((*self.from_mark(),))

    def append(self, argument: Any) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def appends(self, argument: Any) -> None:
        values = self.from_mark()
        self.stack[-1].extend(values)

    def set_item(self, argument: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set(key, value)

    def set_items(self, argument: Any) -> None:
        values = iter(self.from_mark())
        for key, value in zip(values, values, strict=True):
            self.set(key, value)

    def set(self, key: Any, value: Any) -> None:
        # Larger numbers, and tuples, can be chosen so that each is looked for among all that came before.
        if type(key) is not str and not (type(key) is int and abs(key) < 2**32):
            raise ValueError("no key of a state dict")
        self.stack[-1][key] = value


_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
_MADE: dict[str, Callable[[], Any]] = {
    "MARK": _Mark, "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing, "STOP": _Machine.nothing, "GLOBAL": _Machine.name, "TUPLE": _Machine.make_tuple,
    "BINPUT": _Machine.keep, "LONG_BINPUT": _Machine.keep, "BINGET": _Machine.recall, "LONG_BINGET": _Machine.recall,
    "APPEND": _Machine.append, "APPENDS": _Machine.appends, "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items, "REDUCE": _Machine.call, "BUILD": _Machine.build, "BINPERSID": _Machine.refer,
}  # fmt: skip


def _make(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of the function `name` would give, where it makes a part of a state dict."""
    if name == "collections.OrderedDict" and arguments == ():
        return {}
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        storage, offset, size, stride = arguments[:4]
        if not isinstance(storage, Storage):
            raise ValueError("no storage")
        return View(storage, offset, size, stride)
    if name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], View):
        return arguments[0]
    if name.startswith(("torch._utils._rebuild_", "torch.serialization.")):
        raise Refused(f"holds {NOT_PLAIN}")
    raise ValueError("a call that makes no state dict")
