"""A folder of images as an image source."""

from os import PathLike
from pathlib import Path

from imtrans.data.file_checks import check_files, describe_found
from imtrans.data.images import image_files, image_size, read_image, resized
from imtrans.data.sampling import Batch
from imtrans.errors import DataError, printable


class ImageFolder:
    """The images of a folder, sorted by name; an `imtrans.data.crop_dataset.ImageSource`.

    Args:
        owner: the name of the data set, for error texts.
        folder: the folder of images.
        name: the key of an image in the dict that `load` returns.
        size: height and width that images are resized to.
        on_bad_image: see `imtrans.data.file_checks.check_files`; `bad_images` has a report of each file left out.

    Raises:
        ArgumentError: an unknown `on_bad_image`.
        DataError: a missing or empty folder, an unreadable file, or no readable one; the text names the files.
    """

    def __init__(self, owner: str, folder: str | PathLike[str], *, name: str, size: int, on_bad_image: str) -> None:
        self.folder, self.name, self.size = Path(folder), name, size
        paths = image_files(self.folder)
        if not paths:
            raise DataError(f"{printable(self.folder)} holds no pictures. Put some (.png, .jpg, .tif, .webp) in it.")
        good, self.bad_images = check_files(
            owner, paths, check_header=image_size, decode=lambda path: read_image(path).size, on_bad_image=on_bad_image
        )
        self.paths = [path for path, _ in good]
        self.sizes = sorted({size for _, size in good})

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Batch:
        """Return image `index`, decoded and resized: ``{name: uint8 (3, size, size)}``."""
        return {self.name: resized(read_image(self.paths[index]), self.size)}

    def __repr__(self) -> str:
        return f"{len(self)} pictures {describe_found(self.folder, self.bad_images, self.sizes)}"
