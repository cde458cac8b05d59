"""State dicts from files of ``torch.save`` that may be hostile."""

import io
import pickletools
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from imtrans.errors import SavedModelError, short_repr
from imtrans.files import disk_errors, read_file

MOST_INSTRUCTIONS = 100_000  # in a pickle; a network of a thousand tensors takes 40,000
REAL = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
GLOBALS = {
    "collections OrderedDict",
    *(f"torch._utils _rebuild_{kind}" for kind in ("tensor", "tensor_v2", "parameter")),
    *(f"torch {kind}Storage" for kind in REAL),
}
_GIVE = "Give the file that the reference implementation saved, such as latest_net_G.pth."
_DAMAGED = "is not a state dict of plain tensors: it is damaged, or holds something else, which was not run."


def check_torch(file: Path | str) -> None:
    """Raise a SavedModelError if this version of torch does not read `file` safely."""
    if torch.__version__ < "2.10":  # compared as a version
        raise SavedModelError(
            f"{file} is not read: a file can make torch {torch.__version__} run code (CVE-2026-24747). Update to torch "
            "2.10 or newer."
        )


def read_torch_file(path: Path, *, advice: str = _GIVE) -> dict[str, Tensor]:
    """Read a dict of named tensors with ``torch.load(weights_only=True)``, on the CPU.

    Reads the zip files of PyTorch since 1.6 and the format before it. First, compressed members are refused, and
    pickles that name more than plain tensors: torch would allocate as much memory as they ask for. It still reserves
    what a tensor in the format before 1.6 claims. `advice` ends the error texts: which file to give.

    Raises:
        SavedModelError: the file cannot be read, is damaged, or holds anything else; torch is older than 2.10.
    """
    check_torch(path)
    with disk_errors(SavedModelError, f"{path} cannot be read", "Check the path."):
        content = read_file(path)
    try:
        file, held = io.BytesIO(content), None
        if content[:4] == b"PK\3\4":
            file = _stored_members(file)
        else:
            # Magic number, version, system, state dict, and the keys of the storages, which follow: 8 bytes, then data.
            counts = [_check_pickle(file) for _ in range(5)]
            held = len(content) - file.tell() - 8 * counts[-1]
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deprecated storages and odd archives
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged data makes the readers raise anything
        raise SavedModelError(f"{path} {_DAMAGED} {advice}") from error
    if not isinstance(found, dict):
        raise SavedModelError(f"{path} holds a {type(found).__name__}, not a dict of tensors. {advice}")
    state = dict(dict.items(found))  # a file can give its OrderedDict another `items`
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise SavedModelError(
                f"{path} holds {short_repr(value)} under {short_repr(key)}, not a named tensor. {advice}"
            )
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()}
    if held not in (None, sum(storages.values())):
        raise SavedModelError(f"{path} {_DAMAGED} {advice}")  # torch leaves a storage without data uninitialized
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > len(content):
        raise SavedModelError(
            f"{path} has {len(content):,} bytes and claims tensors of {claimed:,}. Fetch the file again."
        )
    return state


def _stored_members(file: io.BytesIO) -> io.BytesIO:
    """Check the members and copy them to a new archive: torch's own zip reader could find others in this one."""
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as stored:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
            raise ValueError("compressed members")
        if sum(member.file_size for member in members) > len(file.getbuffer()):
            raise ValueError("overlapping members")
        if len({member.filename.lower() for member in members}) < len(members):  # torch ignores case
            raise ValueError("two members of one name")
        for member in members:
            content = archive.read(member)
            if member.filename.lower().endswith("data.pkl"):
                _check_pickle(io.BytesIO(content))
            stored.writestr(member.filename, content)
    return copy


def _check_pickle(file: io.BytesIO) -> int:
    """Read a pickle to its end without executing it; refuse all but tensors and plain values. Count its strings."""
    strings = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if count == MOST_INSTRUCTIONS or (instruction.name == "GLOBAL" and argument not in GLOBALS):
            raise ValueError(f"not the pickle of a state dict: {short_repr(argument)}")
        strings += isinstance(argument, str)
    return strings
