"""Paired images from folders: source and target show the same scene."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imtrans.checks import at_least, check_bool, increasing_pair, one_of
from imtrans.colours import Colour, check_palette
from imtrans.data.arrays import GIVE_RANGE, READABLE, read_array, read_ids, resized_array, resized_ids
from imtrans.data.crop_dataset import Batch, CropParams, Jitter, SingleSourceDataset, Size, Transform
from imtrans.data.image_folder import check_files, describe_found, suggest_skip
from imtrans.data.images import (
    SUFFIXES,
    ValueRange,
    as_rgb,
    image_files,
    read_image,
    resized,
    to_float,
    warn_of_dark_files,
)
from imtrans.data.labels import edges, ids_from_colours
from imtrans.data.pairs import (
    ImageFile,
    Pair,
    RowPair,
    array_hint,
    like_named,
    size_of,
    with_instances,
    without_partner,
)
from imtrans.errors import ArgumentError, DataError, counted, join_names, printable, short_repr

DIRECTIONS = ("AtoB", "BtoA")
PREPROCESS = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}
CHANNELS = {"rgb": 3, "grey": 1, "as they are": None}


@dataclass(frozen=True)
class _Side:
    channels: int
    deep: bool


class PairedImages(SingleSourceDataset):
    """A folder of image pairs, source and target, in one of two layouts.

    - `folder` holds images with A in the left half and B in the right half, as in the data sets of pix2pix.
    - `folder` holds two folders, ``A`` and ``B``, of files with the same names; the suffixes may differ.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1] (see `labels`), a function of
    (seed, epoch, index). Every file is checked once, when the data set is made; `files` lists the file names of the
    samples (of A). Images are rotated as their EXIF orientation says.

    Args:
        folder: the folder of pairs.
        direction: ``"AtoB"``: A is the source and B the target; or ``"BtoA"``.
        size: height and width of a sample: a number, or ``(height, width)``.
        load_size: see `imtrans.data.crop_dataset.Jitter`.
        augment: whether to crop and flip; if False, images are only resized.
        flip: whether to mirror left and right with probability 1/2.
        seed: the seed of the augmentation.
        on_bad_image: what to do with an unreadable file, a file without partner, or a pair that cannot be halved or
            differs in size. ``"error"`` reads the headers and raises an error. ``"skip"`` decodes every file, which
            takes about as long as an epoch, leaves bad samples out with a warning, and reports them in `bad_images`.
        value_range: the values ``(low, high)`` of 16-bit and float files that become -1 and 1; others are clipped. None
            for 0 to 65535, and for floats 0 to 1. Files of 8 bit are read as they are. `Trainer` saves it with the
            generator, so that `imtrans.translate` reads such files alike.
        labels: the palette of the source, if that is a painted label map: ``"facades"`` or ``"cmp"``, ``"cityscapes"``,
            a mapping from classes to colours, or a list of colours ``(r, g, b)``, at most 256. The source then has a
            channel for each class, in {0, 1}: label maps are resized by nearest neighbour, and each pixel gets the
            class of the nearest colour. `palette` has the colours. A number: the source holds the ids of that many
            classes, from 0, at most 256: grey values, indices into the colour table of an image, or an integer array
            ``.npy``. This needs the folders A and B, and so does another value of `channels`, which is for the target.
        instances: whether the last channel of the source is 1 at the edges between objects, see
            `imtrans.data.labels.edges`. `folder` then has a folder ``instances`` too, of files with the same names that
            hold the id of an object for each pixel, of any number of bits. It needs `labels`.
        channels: ``"rgb"`` reads image files as 8-bit RGB. The other values keep 16-bit and float values, and read
            ``.npy`` and ``.npz`` files too, arrays ``h w`` or ``h w c``. ``"as they are"``: the channels of the files,
            the same in all files of A, and of B; ``"grey"``: 1; or a number, where 1, 3 or 4 convert image files.
            `channels` then has the number of source and target.
        transform: called as ``transform(source, target, generator)`` with each sample's tensors ``(c, size, size)``, on
            the CPU; returns both. `generator` is a `torch.Generator` seeded by (seed, epoch, index): a transform that
            draws from it alone is the same with any number of workers, and after resuming.
        preprocess: how an image becomes a sample, besides the flip:

            - ``"resize_and_crop"``: resized to `load_size`, which may change its shape; a random crop of `size`.
            - ``"crop"``: a random crop of the image as it is.
            - ``"scale_width"``: resized to the width of `load_size`, keeping its shape, and at least as high as `size`.
            - ``"scale_width_and_crop"``: the same; then a random crop of `size`.
            - ``"none"``: resized to the nearest multiples of 4.

            Without augmentation, `load_size` is `size`, and crops are at the centre. ``"scale_width"`` and ``"none"``
            give samples of several sizes for images of several shapes: use a batch size of 1. Images of several sizes
            are not cached.
        resample: filter of the resizing: ``"bicubic"``, or ``"nearest"`` as in the pix2pix tutorial of TensorFlow.

    Raises:
        ArgumentError: an unknown direction, `preprocess` or `resample`, a size below 1, a negative `seed`, an unknown
            `on_bad_image`, a `value_range` that is not two increasing numbers, an invalid palette, unknown `channels`,
            a `transform` that is not callable, or `labels` and `instances` that do not fit the data.
        DataError: a missing or empty folder, no good pair, two files of one name, a bad file (see `on_bad_image`), or
            a label map with other ids,
            also when it is found only in training; the text names the files.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        direction: str = "AtoB",
        size: Size = 256,
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
        value_range: ValueRange | None = None,
        labels: object = None,
        instances: bool = False,
        channels: str | int = "rgb",
        transform: Transform | None = None,
        preprocess: str = "resize_and_crop",
        resample: str = "bicubic",
    ) -> None:
        self.folder = Path(folder)
        self.direction = one_of("PairedImages", "direction", direction, DIRECTIONS)
        self.jitter, self.augment, self.on_bad_image = Jitter(size, load_size, flip), augment, on_bad_image
        self.preprocess = one_of("PairedImages", "preprocess", preprocess, PREPROCESS)
        self.resample = one_of("PairedImages", "resample", resample, RESAMPLE)
        self.whole = preprocess in ("scale_width", "none")
        self.seed = at_least("PairedImages", "seed", seed, 0)
        self.palette, self.num_labels = _checked_labels(labels)
        self._classes = self.num_labels or len(self.palette or ())
        self._label_side = None if labels is None else self._in_direction(0, 1)[0]
        check_bool("PairedImages", "instances", instances)
        self.instances = instances
        if instances and labels is None:
            raise ArgumentError("PairedImages: instances=True adds edges to a label map. Give labels=... too.")
        self.value_range = None if value_range is None else increasing_pair("PairedImages", "value_range", value_range)
        self._as_rgb, self._asked = channels == "rgb", _checked_channels(channels)
        if not (transform is None or callable(transform)):
            raise ArgumentError(f"PairedImages: transform must be callable, got {short_repr(transform)}.")
        self.transform = transform
        as_pictures = channels == "rgb" and self.num_labels is None
        pairs, alone = self._find_pairs(SUFFIXES if as_pictures else READABLE)
        if labels is not None and not as_pictures and any(pair.b is None for pair in pairs):
            raise ArgumentError(
                "PairedImages: side-by-side pairs have label maps in RGB colours, and targets with channels='rgb'. For "
                f"labels={short_repr(labels)} and channels={channels!r}, put both into two folders, A and B."
            )
        reports = [f"{printable(path)} has no partner of the same name." for path in alone]
        if alone and on_bad_image != "skip":
            reports = [without_partner(*self.folders, alone)]
        if instances:
            pairs, without_ids = with_instances(pairs, self.folder / "instances")
            reports += without_ids

        def check_header(pair: Pair) -> tuple[tuple[int, int], list[ImageFile]]:
            size, files = pair.check_header()
            self._check_crop(pair.a, size)
            return size, files

        def decode(pair: Pair) -> tuple[tuple[int, int], list[ImageFile]]:
            found = check_header(pair)
            self._read_pair(pair, [self._asked or file.channels for file in found[1]])
            return found

        good, self.bad_images = check_files(
            "PairedImages", pairs, check_header, decode, on_bad_image=on_bad_image, known=reports
        )
        self.pairs = [pair for pair, _ in good]
        self.files = [pair.name for pair in self.pairs]
        self.sizes = sorted({size for _, (size, _) in good})
        self._shapes = [self._loaded_shape_of(size) for _, (size, _) in good]
        self.same_size = len(set(self._shapes)) == 1
        sides = [list(side) for side in zip(*(files for _, (_, files) in good), strict=True)]
        images = [side for number, side in enumerate(sides) if number != self._label_side]
        if channels == "as they are":
            _check_same_channels(images)
        self._sides = [_Side(self._asked or s[0].channels, deep=any(f.deep for f in s)) for s in (sides[0], sides[-1])]
        if value_range is None:
            with suggest_skip(on_bad_image):
                deep = [f.path for side in images for f in side if f.deep and f.path.suffix.lower() in SUFFIXES]
                warn_of_dark_files("PairedImages", deep)

    @staticmethod
    def from_rows(
        rows: Sequence[Mapping[str, Any]],
        source: str = "imageB",
        target: str = "imageA",
        *,
        name: str = "rows",
        size: Size = 256,
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
        value_range: ValueRange | None = None,
        labels: object = None,
        transform: Transform | None = None,
        preprocess: str = "resize_and_crop",
        resample: str = "bicubic",
    ) -> "PairedImages":
        """Make a data set of rows with PIL pictures, such as a split that the ``datasets`` library loads.

        Every row is read once, when the data set is made. `files` has the numbers of the rows, ``"row 0"`` and so on.
        The other arguments, and the samples, are as for `PairedImages`.

        Args:
            rows: a sequence of dicts.
            source: column of the sources. By default, sources and targets are as in huggan/facades: labels to photos.
            target: column of the targets.
            name: name of the rows in error texts and in the ``repr``. A run is resumed only with the same name.
            labels: the palette of the sources; ids are read from files alone.

        Raises:
            ArgumentError: `rows` is no sequence of dicts, or has no such columns, or `labels` is a number; and as for
                `PairedImages`.
            DataError: no rows, a row that cannot be read or holds something else than pictures, or two pictures of
                different sizes. With ``on_bad_image="skip"`` such rows are left out.

        >>> picture = Image.new("RGB", (70, 50))
        >>> PairedImages.from_rows([{"imageA": picture, "imageB": picture}], size=32)
        1 pair of rows in rows, 70x50 pixels, imageB to imageA, as Jitter(size=32, load_size=None, flip=True)
        """
        return PairedRows(
            rows, (source, target), name, size=size, load_size=load_size, augment=augment, flip=flip, seed=seed,
            on_bad_image=on_bad_image, value_range=value_range, labels=labels, transform=transform,
            preprocess=preprocess, resample=resample,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def channels(self) -> dict[str, int]:
        """Number of channels of ``"source"`` and ``"target"``."""
        source, target = self._in_direction(*(side.channels for side in self._sides))
        return {"source": self._classes + self.instances if self._classes else source, "target": target}

    @property
    def folders(self) -> tuple[Path, Path]:
        """The folders of A and of B, unless each file holds both."""
        return self.folder / "A", self.folder / "B"

    def _find_pairs(self, suffixes: Collection[str]) -> tuple[list[Pair], list[Path]]:
        """Return the pairs, sorted by name, and the files without partner."""
        if any(folder.is_dir() for folder in self.folders):
            named, alone = like_named(*self.folders, suffixes)
            return [Pair(a, b) for a, b in named], alone
        pairs = [Pair(path) for path in image_files(self.folder, suffixes)]
        if not pairs:
            raise DataError(
                f"{printable(self.folder)} holds no pictures. Put side-by-side pairs (.png, .jpg, .tif, .webp) in it, "
                f"or two folders, A and B, of files with the same names.{array_hint(self.folder, suffixes)}"
            )
        return pairs, []

    def _in_direction(self, a: Any, b: Any) -> tuple[Any, Any]:
        return (a, b) if self.direction == "AtoB" else (b, a)

    def _read_pair(self, pair: Pair, channels: Sequence[int]) -> tuple[Any, Any, Any]:
        """Return both images, and the instance ids or None."""
        a, b = pair.read(lambda path, side: self._read(path, side, channels[side]))
        return a, b, None if pair.instances is None else read_ids(pair.instances)

    def _read(self, path: Path, side: int, channels: int) -> Any:
        if self.num_labels is not None and side == self._label_side:
            side_name, other = ("A", "BtoA") if self.direction == "AtoB" else ("B", "AtoB")
            hint = (
                f" They are read from {side_name}; for the other folder, use direction={other!r} (--direction {other})."
            )
            return read_ids(path, self.num_labels, hint=hint)
        if self._as_rgb or side == self._label_side:
            return read_image(path, self.value_range, way_out=GIVE_RANGE)
        return read_array(path, channels, self.value_range)

    def load(self, index: int) -> Batch:
        """Return the images of sample `index`, decoded and resized: uint8, or floats for files of more than 8 bits.

        The source with labels is one channel of class ids, and perhaps one of edges, 0 or 255.
        """
        pair = self.pairs[index]
        with suggest_skip(self.on_bad_image):
            *images, instances = self._read_pair(pair, [side.channels for side in self._sides])
        shape = self._loaded_shape_of(size_of(images[0]))
        if shape != self._shapes[index]:
            raise DataError(f"{printable(pair.a)} has another size than when the data set was made.")
        source, target = self._in_direction(*(self._resized(image, side, shape) for side, image in enumerate(images)))
        if instances is not None:
            source = torch.cat([source, edges(resized_ids(instances, shape))[0].byte() * 255])
        return {"source": source, "target": target}

    def _resized(self, image: Any, side: int, shape: tuple[int, int]) -> Tensor:
        if side == self._label_side:
            if self.palette is None:
                return resized_ids(image, shape).byte()
            painted = resized(image, shape, Image.Resampling.NEAREST)
            return ids_from_colours(to_float(painted[None]), self.palette).byte()
        resample = RESAMPLE[self.resample]
        if self._as_rgb:
            return resized(image, shape, resample)
        return resized_array(image, shape, deep=self._sides[side].deep, resample=resample)

    def _loaded_shape_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width that an image of `size` (width, height) is resized to, as `preprocess` says."""
        (width, height), (loaded_height, loaded_width) = size, self.loaded_shape
        if self.preprocess == "resize_and_crop":
            return loaded_height, loaded_width
        if self.preprocess == "crop":
            return height, width
        if self.preprocess == "none":
            return max(4, round(height / 4) * 4), max(4, round(width / 4) * 4)
        return max(height * loaded_width // width, self.jitter.shape[0]), loaded_width

    def _check_crop(self, path: Path, size: tuple[int, int]) -> None:
        height, width = self.jitter.shape
        if self.preprocess == "crop" and (size[0] < width or size[1] < height):
            raise DataError(
                f"{printable(path)} is {size[0]}x{size[1]}, smaller than a crop of {width}x{height}. Use a smaller "
                "size, or another preprocess than 'crop'."
            )

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return `index` and a random crop; without augmentation, the one at the centre."""
        shape = self._shapes[index]
        crop = shape if self.whole else self.jitter.shape
        if not self.augment:
            return [(index, (shape[1] - crop[1]) // 2, (shape[0] - crop[0]) // 2, False)]
        rng = np.random.default_rng((self.seed, epoch, index))
        return [(index, *self.jitter.random_crop(rng, shape, crop))]

    def sample(self, crops: Batch) -> Batch:
        """Encode the class ids of label maps as one-hot channels."""
        if not self._classes:
            return crops
        ids, boundary = crops["source"].tensor_split([1], dim=-3)
        classes = torch.arange(self._classes, device=ids.device)[:, None, None]
        one_hot = ((ids + 1) * 127.5).round() == classes  # each crop becomes floats in [-1, 1]
        return {**crops, "source": torch.cat([one_hot, boundary > 0], dim=-3).float()}

    def __repr__(self) -> str:
        found = describe_found(self.folder, self.bad_images, self.sizes)
        return f"{counted(len(self), 'pair')} {self._layout} {found}{self._settings}"

    @property
    def settings(self) -> str:
        """The ``repr`` without the facts that depend on the files."""
        return f"pairs {self._layout} in {printable(self.folder)}{self._settings}"

    @property
    def _layout(self) -> str:
        return "side by side" if self.pairs[0].b is None else "in folders A and B"

    @property
    def _settings(self) -> str:
        values = "" if self.value_range is None else ", values {:g} to {:g}".format(*self.value_range)
        kinds = "" if self._as_rgb else ", {source} to {target} channels".format(**self.channels)
        if self._classes:
            kinds += f", source of {counted(self._classes, 'label')}{' and edges' if self.instances else ''}"
        if self.preprocess != "resize_and_crop":
            kinds += f", preprocess {self.preprocess}"
        if self.resample != "bicubic":
            kinds += f", resample {self.resample}"
        if self.transform is not None:
            # Not its repr, which may hold an address: a resumed run compares this text.
            kinds += f", transform {getattr(self.transform, '__qualname__', type(self.transform).__qualname__)}"
        return f"{values}{kinds}, {self._order}, {self._describe_crops()}"

    @property
    def _order(self) -> str:
        return self.direction


class PairedRows(PairedImages):
    """The data set that `PairedImages.from_rows` makes; `columns` are the ones of source and target."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], columns: tuple[str, str], name: str, **settings: Any) -> None:
        _check_rows(rows, columns, name)
        if isinstance(settings["labels"], int):
            raise ArgumentError(
                f"PairedImages.from_rows: labels must be a palette, got {settings['labels']}. Maps of class ids are "
                "read from files: PairedImages(folder, labels=...)."
            )
        self.rows, self.columns = rows, columns
        super().__init__(name, **settings)

    def _find_pairs(self, suffixes: Collection[str]) -> tuple[list[Pair], list[Path]]:
        pairs: list[Pair] = []
        for number in range(len(self.rows)):
            a, b = (Path(f"{self.folder}, row {number}, {column}") for column in self.columns)
            pairs.append(RowPair(a, b, rows=self.rows, number=number, columns=self.columns))
        return pairs, []

    def _read(self, path: Any, side: int, channels: int) -> Any:
        return as_rgb(path.picture, path.name, self.value_range, way_out=GIVE_RANGE)

    @property
    def _layout(self) -> str:
        return "of rows"

    @property
    def _order(self) -> str:
        return " to ".join(self.columns)


def _check_rows(rows: Any, columns: tuple[str, str], name: str) -> None:
    """Raise an ArgumentError unless `rows` is a sequence of dicts with the columns, and a DataError if it is empty."""
    owner = "PairedImages.from_rows"
    if isinstance(rows, Mapping):
        raise ArgumentError(
            f"{owner}: rows is a dict of {join_names([repr(key) for key in rows])}. Give the rows of one of them."
        )
    if isinstance(rows, str) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        raise ArgumentError(
            f"{owner}: rows must be a sequence of dicts, got a {type(rows).__name__}. The datasets library makes one: "
            "load_dataset(..., split='train'), without streaming=True."
        )
    if len(rows) == 0:
        raise DataError(f"{printable(name)}: there are no rows.")
    # A data set of the datasets library knows its columns, so that no picture is decoded.
    known: list[Any] = list(getattr(rows, "column_names", None) or columns)
    if isinstance(rows, (list, tuple)):
        if not isinstance(rows[0], Mapping):
            raise ArgumentError(f"{owner}: a row must be a dict with PIL pictures, got {short_repr(rows[0])}.")
        known = list(rows[0])
    if missing := [column for column in columns if column not in known]:
        raise ArgumentError(
            f"{owner}: {printable(name)} has no column {missing[0]!r}. Its columns are "
            f"{join_names([repr(column) for column in known])}. Name two of them: source=..., target=... (--columns)."
        )


def _checked_labels(labels: object) -> tuple[tuple[Colour, ...] | None, int | None]:
    """Return the palette of painted label maps, or the number of class ids."""
    if isinstance(labels, int):
        return None, at_least("PairedImages", "labels", labels, 1, 256)
    if labels is None:
        return None, None
    palette = check_palette("PairedImages", labels, "labels")
    at_least("PairedImages", "the number of labels", len(palette), 1, 256)
    return palette, None


def _checked_channels(channels: object) -> int | None:
    """Return the number of channels; None if the files decide it."""
    if isinstance(channels, str):
        return CHANNELS[one_of("PairedImages", "channels", channels, CHANNELS)]
    return at_least("PairedImages", "channels", channels, 1)


def _check_same_channels(sides: list[list[ImageFile]]) -> None:
    for side in sides:
        for file in side:
            if file.channels != side[0].channels:
                raise DataError(
                    f"{printable(side[0].path)} has {counted(side[0].channels, 'channel')}, {printable(file.path)} has "
                    f"{file.channels}. Give channels={side[0].channels} to convert pictures, or take one out."
                )
