"""The authors' weights by name: fetched once, converted, and kept as a saved model in the cache folder.

The names are ``junyanz/pix2pix/NAME`` and ``junyanz/cyclegan/NAME``. A repo on the Hub has two parts, not three.
https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix
"""

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

from imtrans.checks import check_sha256
from imtrans.convert.junyanz import from_junyanz
from imtrans.convert.torch_file import check_torch
from imtrans.errors import ArgumentError, DataError, ImtransError, SavedModelError, did_you_mean
from imtrans.files import cache_folder, disk_errors, json_bytes, read_file, sha256_of, sync_folder, write_atomic
from imtrans.hub.download import fetch
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import CONFIG, WEIGHTS, SavedModel
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator

SERVER = "http://efrosgans.eecs.berkeley.edu"
RECORD = "source.json"
"""File of a cached model with the address and the digest of the file that it was converted from."""
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class PublishedWeights:
    """A network that the authors trained, and that `load_pretrained` fetches by its name.

    Attributes:
        name: the name for `load_pretrained`.
        task: subject of the images.
        source: input images.
        target: output images.
        architecture: the preset of `UNetGenerator` or `ResnetGenerator`. Inputs and outputs are RGB images.
        inference_mode: the mode in which the authors run it, see `imtrans.modes.running_as`.
        megabytes: approximate size of the file.
        url: address of the file.
    """

    name: str
    task: str
    source: str
    target: str
    architecture: str
    inference_mode: str
    megabytes: int
    url: str

    def __str__(self) -> str:
        return f"{self.name}: {self.source} to {self.target} ({self.architecture}, {self.megabytes} MB)"


# Of each method: folder on the server, class, preset, inference mode, megabytes of a file.
_METHODS: dict[str, tuple[str, type[Pretrained], str, str, int]] = {
    "pix2pix": ("pix2pix/models-pytorch", UNetGenerator, "junyanz/unet_256", "paper", 218),
    "cyclegan": ("cyclegan/pretrained_models", ResnetGenerator, "junyanz/resnet_9blocks", "eval", 46),
}
_FILES = {
    "pix2pix": {
        "edges2shoes": ("shoes", "edges", "photo"),
        "sat2map": ("maps", "aerial photo", "map"),
        "map2sat": ("maps", "map", "aerial photo"),
        "facades_label2photo": ("facades", "label map", "photo"),
        "day2night": ("day and night", "photo by day", "photo by night"),
    },
    "cyclegan": {
        "apple2orange": ("fruit", "photo of apples", "photo of oranges"),
        "orange2apple": ("fruit", "photo of oranges", "photo of apples"),
        "summer2winter_yosemite": ("seasons", "Yosemite in summer", "Yosemite in winter"),
        "winter2summer_yosemite": ("seasons", "Yosemite in winter", "Yosemite in summer"),
        "horse2zebra": ("horses and zebras", "photo of horses", "photo of zebras"),
        "zebra2horse": ("horses and zebras", "photo of zebras", "photo of horses"),
        "monet2photo": ("paintings", "painting by Monet", "photo"),
        "style_monet": ("paintings", "photo", "painting in the style of Monet"),
        "style_cezanne": ("paintings", "photo", "painting in the style of Cezanne"),
        "style_ukiyoe": ("paintings", "photo", "print in the style of ukiyo-e"),
        "style_vangogh": ("paintings", "photo", "painting in the style of Van Gogh"),
        "sat2map": ("maps", "aerial photo", "map"),
        "map2sat": ("maps", "map", "aerial photo"),
        "cityscapes_photo2label": ("streets", "photo", "label map"),
        "cityscapes_label2photo": ("streets", "label map", "photo"),
        "facades_photo2label": ("facades", "photo", "label map"),
        "facades_label2photo": ("facades", "label map", "photo"),
        "iphone2dslr_flower": ("flowers", "photo by a phone", "photo with a blurred background"),
    },
}


def published_weights() -> tuple[PublishedWeights, ...]:
    """List the weights that the authors of pix2pix and CycleGAN published, for `load_pretrained`.

    >>> len(published_weights())
    23
    >>> print(published_weights()[3])
    junyanz/pix2pix/facades_label2photo: label map to photo (junyanz/unet_256, 218 MB)
    """
    listed = []
    for method, files in _FILES.items():
        folder, _, architecture, mode, megabytes = _METHODS[method]
        for file, (task, source, target) in files.items():
            name, url = f"junyanz/{method}/{file}", f"{SERVER}/{folder}/{file}.pth"
            listed.append(PublishedWeights(name, task, source, target, architecture, mode, megabytes, url))
    return tuple(listed)


def is_published(name: str | PathLike[str]) -> TypeGuard[str]:
    """Whether `name` has the form of a name in `published_weights`, and is not a folder or file.

    >>> is_published("junyanz/pix2pix/facades_label2photo"), is_published("junyanz/pix2pix")
    (True, False)
    """
    return isinstance(name, str) and bool(re.fullmatch(r"junyanz/[^/]+/[^/]+", name)) and not os.path.exists(name)


@dataclass
class PublishedModel(SavedModel):
    """The saved model of published weights in the cache folder. It is fetched if it is missing or damaged.

    A file with another digest than `sha256` is refused, also if the saved model was converted from it earlier. Several
    processes may use the same cache folder.

    Raises:
        ArgumentError: an unknown name, an option of repos, or `sha256` is not a digest.
    """

    sha256: str | None = None

    def __post_init__(self) -> None:
        self.remote = False
        for option in ("revision", "token", "subfolder"):
            if getattr(self, option) is not None:
                raise ArgumentError(
                    f"load_pretrained: {option} is for a repo on the Hub, and {self.name} names one file of the "
                    f"authors. Leave {option} out."
                )
        self.sha256 = check_sha256("load_pretrained", self.sha256)
        name, known = str(self.name), {weights.name: weights for weights in published_weights()}
        if name not in known:
            file = name.rpartition("/")[2]
            hint = did_you_mean(file if any(file in files for files in _FILES.values()) else name, known)
            raise ArgumentError(
                f"load_pretrained: the authors published no weights {name}.{hint} All names: "
                "imtrans.published_weights()."
            )
        self._weights, self._folder = known[name], cache_folder() / "weights" / name

    def config(self) -> dict[str, Any]:
        """Read ``config.json`` and check it, and the recorded digest. Fetches the weights if need be.

        Raises:
            DataError: the file cannot be fetched.
            SavedModelError: the file holds other things, or has another digest; or the cache folder cannot be written.
        """
        config = super().config()
        found = self._read(RECORD, self._parse_record)
        if self.sha256 not in (None, found):
            raise SavedModelError(
                f"{self.name} in the cache was converted from a file with the SHA-256 {found}, not {self.sha256}. "
                f"Remove {self._folder} to fetch it again."
            )
        return config

    def training(self) -> dict[str, Any]:
        """Return where the weights come from. Raises as `config` does."""
        weights = self._weights
        return {
            "by": "the authors, https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
            "task": weights.task,
            "source": weights.source,
            "target": weights.target,
            "file": weights.url,
            "sha256": self._read(RECORD, self._parse_record),
        }

    def _read(self, file: str, parse: Callable[[Path], Any]) -> Any:
        try:
            return parse(self._folder / file)
        except SavedModelError:
            self._fetch()
            return parse(self._folder / file)

    def _parse_record(self, path: Path) -> str:
        try:
            return str(json.loads(self._bytes(path, 10_000))["sha256"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise SavedModelError(f"{path} is damaged. Remove {self._folder} to fetch the weights again.") from error

    def _is_intact(self) -> bool:
        with suppress(SavedModelError, OSError):
            self._parse_record(self._folder / RECORD)
            return bool(sha256_of(self._folder / WEIGHTS) == self._parse_config(self._folder / CONFIG)["sha256"])
        return False

    def _fetch(self) -> None:
        """Fetch and convert the file, unless another process did so meanwhile."""
        check_torch(str(self.name))
        advice = "Make room, or set IMTRANS_HOME to a folder on another disk."
        with disk_errors(SavedModelError, f"{self._folder} cannot be written", advice):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            with self._lock():
                if self._is_intact():
                    return
                unfinished = self._folder.with_name(f".{self._folder.name}.tmp")
                shutil.rmtree(unfinished, ignore_errors=True)  # a process that was killed leaves its own
                try:
                    self._write(unfinished)
                    shutil.rmtree(self._folder, ignore_errors=True)
                    unfinished.rename(self._folder)
                    sync_folder(self._folder.parent)
                except ImtransError as error:
                    if isinstance(cause := error.__cause__, OSError) and cause.errno in _DISK_IS_FULL:
                        raise cause from None
                    raise
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)

    def _write(self, folder: Path) -> None:
        """Fetch the file, and write its saved model to `folder`."""
        url, mode = self._weights.url, self._weights.inference_mode
        print(
            f"Fetching {self.name} over plain http, about {self._weights.megabytes} MB. Its authors publish no digest.",
            file=sys.stderr,
        )
        file = folder / url.rpartition("/")[2]
        try:
            digest = fetch(url, file, sha256=self.sha256)
        except DataError as error:
            raise DataError(
                f"{error} If you have the file from elsewhere, convert it: python -m imtrans.convert FILE FOLDER "
                f"--mode {mode}."
            ) from error.__cause__
        network = self._convert(file)
        file.unlink()
        network.save_pretrained(folder)
        write_atomic(folder / RECORD, json_bytes({"url": url, "sha256": digest}))
        advice = "" if self.sha256 else "Insist on it: load_pretrained(..., sha256=...)."
        print(f"SHA-256 of {file.name}: {digest}. {advice}".rstrip(), file=sys.stderr)

    def _convert(self, file: Path) -> Pretrained:
        wanted = _METHODS[str(self.name).split("/")[1]][1]
        cause = None
        try:
            network = from_junyanz(file, mode=self._weights.inference_mode)
            if isinstance(network, wanted):
                return network
            found = f"a {type(network).__name__}"
        except SavedModelError as error:
            is_page = read_file(file, most=100).lstrip().startswith(b"<")
            cause, found = error, "a web page" if is_page else "a damaged file, or one of another kind,"
        raise SavedModelError(
            f"{self._weights.url} gave {found} instead of the weights of a {wanted.__name__}. Nothing was kept, and no "
            "code in it was run. Try again later, or in another network: a login page may answer for the server."
        ) from cause

    @contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        # A soft lock would outlive a process that is killed.
        lock = FileLock(self._folder.with_name(f".{self._folder.name}.lock"), fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Another process fetches {self.name}. Waiting for it.", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
