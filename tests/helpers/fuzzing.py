"""Files as a stranger would write them, and what is held against whoever reads them.

`Watch` runs a reader on one set of files. It fails if the reader hangs, raises anything but an error of ours, or takes
memory beyond `FACTOR` times the size of the files and `CONSTANT`. Memory is measured twice, as each measure is blind to
something. The address space is limited, which catches what is claimed and never touched: an allocation that fails is
in the chain of causes, whatever the reader makes of it. The peak of the resident memory catches many small objects.
The files lie in a folder that stays, so what crashed the process is there to be looked at.
"""

import io
import json
import pickle
import resource
import signal
import struct
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import torch
from hypothesis import strategies as st

from imtrans import (
    HugGANGenerator,
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UNetGenerator,
)
from imtrans.convert.junyanz import reference_names
from imtrans.errors import ImtransError

HANG = 120  # seconds; a watchdog for a machine under load, not a measure of speed
FACTOR, CONSTANT = 4, 32 * 2**20
NETWORKS = {
    UNetGenerator: {"base_channels": 2, "depth": 2},
    ResnetGenerator: {"base_channels": 2, "num_blocks": 1, "num_downs": 1},
    PatchDiscriminator: {"base_channels": 2, "n_layers": 1},
    PixelDiscriminator: {"base_channels": 2},
    LocalEnhancer: {"base_channels": 2, "num_blocks": 1, "global_blocks": 1, "global_downs": 1},
    HugGANGenerator: {"base_channels": 2, "depth": 2},
    MultiscaleDiscriminator: {"base_channels": 2, "n_layers": 1},
}


class Hang(BaseException):
    """Not an Exception: no reader can take it for damage."""


class Watch:
    """Runs readers on hostile files in `folder`, and notes the slowest and the largest."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.runs = self.refused = 0
        self.slowest = self.largest = (0, "")

    def write(self, files):
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def __call__(self, read, files, *, reserves=False):
        """What `read` returns, or the error of ours that it raises.

        A reader that `reserves` may ask for the memory that a file claims, but not use it.
        """
        self.write(files)
        size = sum(map(len, files.values()))
        before, began = peak(), time.process_time()
        try:
            with no_hang(), little_memory(size):
                found = read()
        except ImtransError as error:
            found = error
        took, grown = time.process_time() - began, peak() - before
        self.runs += 1
        self.refused += isinstance(found, ImtransError)
        # Not the repr of a state: torch recurses over the axes of a tensor, and a file may claim a thousand of size 1.
        shown = f"{found!r:.160}" if isinstance(found, ImtransError) else type(found).__name__
        self.slowest = max(self.slowest, (round(took, 3), shown))
        self.largest = max(self.largest, (grown - FACTOR * size, shown))
        if isinstance(found, ImtransError):
            assert reserves or not starved(found), f"an allocation beyond the files: {found!r}"
            assert 0 < len(str(found).encode()) < 2000, f"{len(str(found))} characters: {found!s:.200}"
        assert grown <= FACTOR * size + CONSTANT, f"{size:,} bytes took {grown:,} of memory: {shown}"
        return found


def peak():
    """The most bytes that this process has ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def no_hang():
    def stop(*_):
        raise Hang(f"still at it after {HANG} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def little_memory(size):
    """Where the system can tell its address space: no more of it than the files let expect, and some for libraries."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**28 + FACTOR * size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def starved(error):
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error) or getattr(error, "errno", None) == 12:
            return True
        error = error.__cause__ or error.__context__
    return False


# JSON

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    8,
    9,
    16,
    17,
    200,
    201,
    1000,
    10**6,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    10**12,
    10**30,
    10**4290,
]
RAW = ["NaN", "Infinity", "-Infinity", "1e400", "-0.0", "1" * 5000, "0x10", "1e-400", "01", "'a'", "undefined", ""]
RAW += [
    "[" * 900 + "]" * 900,
    '{"a":' * 900 + "1" + "}" * 900,
    "[" * 5000,
    r'"\ud800"',
    r'"\u0000"',
    '"' + "x" * 10**5 + '"',
]
RAW += ["[" + "1," * 30_000 + "1]", "[" + "[]," * 30_000 + "[]]"]
WORDS = [
    "batch",
    "instance",
    "group",
    "none",
    "concat",
    "add",
    "gate",
    "relu",
    "leaky_relu",
    "tanh",
    "pool",
    "blur",
    "conv",
    "deconv",
    "nearest",
    "bilinear",
    "shuffle",
    "pad",
    "error",
    "reflect",
    "zeros",
    "paper",
    "eval",
    "imtrans",
]
texts = st.one_of(st.sampled_from([*WORDS, *(cls.__name__ for cls in NETWORKS)]), st.text(st.characters(), max_size=12))
scalars = st.one_of(st.sampled_from([None, True, False, *NUMBERS]), st.floats(), texts, st.integers(-4, 12))
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=5),
    st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=3), max_leaves=8),
)


@st.composite
def places(draw, value):
    """An entry of nested dicts and lists: what it is in, and its key there; None if there is none."""
    place = None
    while isinstance(value, (dict, list)) and value and (place is None or draw(st.integers(0, 3))):
        key = draw(st.sampled_from(list(value))) if isinstance(value, dict) else draw(st.integers(0, len(value) - 1))
        place, value = (value, key), value[key]
    return place


@st.composite
def changed(draw, value, least=1, most=4):
    """JSON text like that of `value`, some entries of which are others, gone, new or there twice."""
    value, raw = json.loads(json.dumps(value)), []
    for _ in range(draw(st.integers(least, most))):
        place = draw(places(value))
        if place is None:
            break
        inside, key = place
        change = draw(st.sampled_from(["replace", "replace", "raw", "delete", "add", "twice"]))
        if change == "replace":
            inside[key] = draw(values)
        elif change == "raw":
            inside[key] = f"@raw{len(raw)}@"
            raw.append(draw(st.sampled_from(RAW)))
        elif change == "delete":
            del inside[key]
        elif isinstance(inside, list):
            inside.insert(0, draw(values) if change == "add" else inside[key])
        elif change == "add":
            inside[draw(texts)] = draw(values)
        else:
            raw.append(json.dumps(inside[key]) + f", {json.dumps(key)}: {json.dumps(draw(values))}")
            inside[key] = f"@raw{len(raw) - 1}@"
    text = json.dumps(value)
    for i, replacement in enumerate(raw):
        text = text.replace(f'"@raw{i}@"', replacement)
    return text


@st.composite
def encoded(draw, text):
    """The bytes of a text: mostly UTF-8, mostly whole."""
    coding = draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-32", "cp037"]))
    return draw(damaged(text.encode(coding, "surrogatepass" if coding.startswith("utf") else "replace")))


@st.composite
def damaged(draw, content, one_in=8):
    """The bytes as they are, or one time in some with a few changed, cut, repeated or appended."""
    if draw(st.integers(1, one_in)) > 1 or not content:
        return content
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        change = draw(st.sampled_from(["flip", "flip", "cut", "repeat", "insert", "append"]))
        if change == "flip":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "cut":
            del content[at : at + draw(st.sampled_from([1, 4, 100, 10**6]))]
        elif change == "repeat":
            content[at:at] = content[at : at + 50]
        else:
            content[at if change == "insert" else len(content) :][:0] = draw(st.binary(max_size=20))
    return bytes(content)


# safetensors

DTYPE_NAMES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "U16", "U32", "U64", "F8_E5M2"]
DTYPE_NAMES += ["F8_E4M3", "F8_E8M0", "F4", "C64", "F32 ", "f32", "", "Q4"]
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


def split(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def laid_out(header, most=2**20):
    """The header with the offsets that its shapes ask for, and as many bytes; as far as they are moderate."""
    at = 0
    for name, entry in header.items():
        if name != "__metadata__" and isinstance(entry, dict):
            count = WIDTHS.get(str(entry.get("dtype")), 1)
            for n in entry["shape"] if isinstance(entry.get("shape"), list) else []:
                count *= n if isinstance(n, int) else 1
            count = count if 0 <= count <= most - at else 0
            entry["data_offsets"], at = [at, at + count], at + count
    return header, bytes(at)


@st.composite
def safetensors_files(draw, content):
    """A file like `content`."""
    header, data = split(content)
    shape = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 10**6, 2**31, 2**32, 2**62, 2**63, 2**64, -1, 1.0]), max_size=5)
    shape = shape | st.sampled_from([[1] * 70, [1] * 5000, [0, 2**62, 2**62], [0] * 70, [2**32, 2**32, 4], None, "2"])
    for name in draw(st.lists(st.sampled_from(list(header)), max_size=3)):
        if name == "__metadata__":
            header[name] = draw(st.sampled_from([{}, {"format": "tf"}, {"a": 1}, [], {"x": "y" * 10**5}]))
            continue
        if name not in header:
            continue
        change = draw(st.sampled_from(["dtype", "shape", "offsets", "rename", "delete", "extra"]))
        if change == "dtype":
            header[name]["dtype"] = draw(st.sampled_from(DTYPE_NAMES))
        elif change == "shape":
            header[name]["shape"] = draw(shape)
        elif change == "offsets":
            numbers = st.sampled_from([0, 1, 4, len(data), len(data) + 1, 2**31, 2**32, 2**63, 2**64 - 1, -1])
            header[name]["data_offsets"] = draw(st.lists(numbers, max_size=3))
        elif change == "rename":
            header[draw(texts | st.just("x" * 10**5) | st.just(f"{name}.{name}"))] = header.pop(name)
        elif change == "delete":
            del header[name]
        else:
            header[name][draw(texts)] = 1
    if draw(st.booleans()):
        header, data = laid_out(header)
    text = draw(changed(header)) if draw(st.integers(1, 3)) == 1 else json.dumps(header)
    raw = draw(encoded(text))
    length = draw(
        st.sampled_from([len(raw)] * 12 + [0, 1, len(raw) - 1, len(raw) + 8, 10**8, 10**8 + 1, 2**62, 2**64 - 1])
    )
    return draw(damaged(struct.pack("<Q", length % 2**64) + raw + data))


# Files of torch.save


def as_reference(network):
    """The tensors under the names of the reference implementation."""
    names, own = reference_names(network), network.state_dict()
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensor for key, tensor in own.items()}


STATES = [
    as_reference(network)
    for network in (
        PixelDiscriminator(base_channels=1),
        PatchDiscriminator(base_channels=1, n_layers=1),
        UNetGenerator(base_channels=1, depth=2),
        UNetGenerator(base_channels=1, depth=3, norm="instance"),
        ResnetGenerator(base_channels=1, num_blocks=1, num_downs=1),
        ResnetGenerator(base_channels=1, num_blocks=2, num_downs=1, norm="batch", dropout=0.5),
    )
]
STORAGES = {torch.float32: "FloatStorage", torch.int64: "LongStorage"}
OTHERS = ["DoubleStorage", "HalfStorage", "BFloat16Storage", "IntStorage", "ByteStorage", "BoolStorage", "CharStorage"]
OTHERS += ["ComplexFloatStorage", "QInt8Storage", "UntypedStorage", "storage", "nn.Module"]


def number(n):
    small = -(2**31) <= n < 2**31
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"J" + struct.pack("<i", n) if small else b"\x8a" + bytes([len(raw)]) + raw


def string(text):
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def several(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(name, *arguments):
    module, _, function = name.rpartition(".")
    return b"c" + f"{module}\n{function}\n".encode() + several(*arguments) + b"R"


def tensor_code(storage, key, length, offset, size, stride, *, legacy=False):
    """The instructions that make a tensor."""
    parts = [string("storage"), f"ctorch\n{storage}\n".encode(), string(key), string("cpu"), number(length)]
    refer = several(*parts, *([b"N"] if legacy else [])) + b"Q"
    sizes = [several(*map(number, numbers)) for numbers in (size, stride)]
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", refer, number(offset), *sizes, b"\x89", hooks)


LAUGHS = b"(]q\x00" + b"".join(b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(60)) + b"t"
BOMBS = [
    call("builtins.bytearray", number(2 * 10**9)),
    call("torch._utils._rebuild_meta_tensor_no_storage", number(1)),
    call("torch._utils._rebuild_sparse_tensor", number(1), number(1)),
    call("torch.serialization._get_layout", string("torch.sparse_coo")),
    call("torch.Tensor", number(10**10)),
    call("torch.FloatStorage", number(10**10)),
    call("os.system", string("touch ran")),
    call("collections.OrderedDict", b"](" + several(string("a"), b"N") * 2000 + b"e"),
    call("_codecs.encode", string("x" * 1000), string("zlib")),
    b"(" * 20_000, b"(" * 20_000 + b"t" * 20_000, b"]" * 50_000 + b"a" * 49_999, b"}" * 1000,
    LAUGHS, LAUGHS + b"\x85", b"N" + b"0" * 3, b"Nr\xff\xff\xff\xff", b"j\xff\xff\xff\xff",
    b"\x96" + struct.pack("<Q", 2**40), b"\x8e" + struct.pack("<Q", 2**62), b"\x8d" + struct.pack("<Q", 2**34) + b"x",
    b"X\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"U\x04name", b"\x8b\xff\xff\xff\x7f\x01", b"I" + b"1" * 10_000 + b"\n",
    b"L" + b"9" * 4000 + b"L\n", b"F1e400\n", b"G\x7f\xf8\0\0\0\0\0\0", b"\x95" + struct.pack("<Q", 2**60),
    b"\x82\x01", b"(ios\nsystem\n", b"Pkey\n", b"NQ", b"\x8f", b"B\xff\xff\xff\xff", b"S'a'\n", b"\x80\x7f", b".", b"",
]  # fmt: skip
SIZES = [0, 1, 2, 4, 10**6, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, -1, 10**30]


@st.composite
def state_code(draw, *, legacy=False):
    """The pickle of a state dict, without its begin and end; the bytes of its storages, and their lengths."""
    state = draw(st.sampled_from(STATES))
    items, data, lengths = [], {}, {}
    touched = draw(st.lists(st.sampled_from(list(state)), max_size=3))
    for i, (name, tensor) in enumerate(state.items()):
        told = [STORAGES[tensor.dtype], str(i), tensor.numel(), 0, list(tensor.shape), list(tensor.stride())]
        data[str(i)], lengths[str(i)] = tensor.numpy().tobytes(), tensor.numel()
        code = None
        for _ in range(touched.count(name)):
            change = draw(
                st.sampled_from(["storage", "key", "length", "offset", "size", "stride", "both", "bomb", "data"])
            )
            if change == "storage":
                told[0] = draw(st.sampled_from(OTHERS))
            elif change == "key":
                told[1] = draw(st.sampled_from(["0", "1", "x", "../0", "", "\0"]))
            elif change in ("length", "offset"):
                told[2 + (change == "offset")] = draw(st.sampled_from(SIZES))
            elif change == "data":
                data[str(i)] = draw(st.sampled_from([b"", b"\xff" * len(data[str(i)]), bytes(999), data[str(i)][1:]]))
            elif change == "bomb":
                code = draw(st.sampled_from(BOMBS) | values.map(lambda v: json_code(v)))
            else:
                axes = draw(st.lists(st.sampled_from(SIZES), max_size=5) | st.just([1] * 70))
                told[4 if change == "both" else 4 + (change == "stride")] = axes
                if change == "both":
                    told[5] = [0] * len(axes)
        name = draw(texts) if touched.count(name) and draw(st.integers(1, 6)) == 1 else name
        items.append(string(name) + (tensor_code(*told, legacy=legacy) if code is None else code))
    if draw(st.integers(1, 6)) == 1:
        items.insert(
            0,
            draw(st.sampled_from([number(3), b"N", b"()", b"K\x01\x85", b"]", b"\x88", LAUGHS]))
            + draw(st.sampled_from(BOMBS)),
        )
    attributes = draw(
        st.sampled_from([b"", b"", b"}" + string("_metadata") + b"}sb", b"Nb", b"}" + string("items") + b"Nsb"])
    )
    return call("collections.OrderedDict") + b"(" + b"".join(items) + b"u" + attributes, data, lengths


def json_code(value):
    """The pickle of a value that JSON can hold, without its begin and end."""
    return pickle.dumps(value, protocol=2)[2:-1]


@st.composite
def zipped_files(draw):
    """What ``torch.save`` writes since PyTorch 1.6."""
    code, data, _ = draw(state_code())
    code = draw(damaged(b"\x80\x02" + code + b".", 5))
    root = draw(st.sampled_from(["archive", "archive", "a/b", "", "../x"]))
    records = {f"{root}/data.pkl": code, f"{root}/byteorder": b"little", f"{root}/version": b"3\n"}
    records |= {f"{root}/data/{key}": raw for key, raw in data.items()}
    for name in draw(st.lists(st.sampled_from(list(records)), max_size=1)):
        change = draw(st.sampled_from(["delete", "other", "bomb"]))
        if change == "delete":
            del records[name]
        else:
            records[name] = draw(st.binary(max_size=40)) if change == "other" else bytes(4 * 10**7)
    buffer = io.BytesIO()
    large = any(len(raw) > 10**6 for raw in records.values())
    method = zipfile.ZIP_DEFLATED if large or draw(st.integers(1, 12)) == 1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, raw in records.items():
            archive.writestr(zipfile.ZipInfo(name), raw, method)
        archive.comment = draw(st.sampled_from([b"", b"", b"PK\5\6" + bytes(18)]))
    content = bytearray(buffer.getvalue())
    if draw(st.integers(1, 4)) == 1:
        # The directory is at the end: lengths, offsets, methods and flags.
        begin = content.find(b"PK\1\2")
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(begin, len(content) - 4))
            content[at : at + 4] = draw(
                st.sampled_from([b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\1\0\0\0", b"\x08\0"])
            )
    return draw(damaged(bytes(content), 6))


@st.composite
def legacy_files(draw):
    """What ``torch.save`` wrote before PyTorch 1.6."""
    code, data, lengths = draw(state_code(legacy=True))
    system = draw(changed({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 0, 1))
    try:
        system = json.loads(system)
    except (ValueError, RecursionError):
        system = {"little_endian": True}
    keys = list(data)
    if draw(st.integers(1, 5)) == 1:
        keys = draw(st.lists(st.sampled_from([*data, "x", "", 1, None]), max_size=12))
    parts = [number(0x1950A86A20F9469CFC6C), number(1001), json_code(system), code, json_code(keys)]
    content = b"".join(b"\x80\x02" + part + b"." for part in parts)
    for key in keys:
        raw = data.get(key, b"")
        whole = lengths.get(key, 0)
        length = draw(st.sampled_from([whole] * 20 + [whole + 1, 2**31, 2**62, -1]))
        content += struct.pack("<q", length) + raw
    return draw(damaged(content, 5))
