"""A folder of pictures that are looked at once, and loaded one by one."""

from os import PathLike
from pathlib import Path

from imtrans.data.file_checks import check_files
from imtrans.data.images import Jitter, image_files, image_size, read_image
from imtrans.data.loader import Batch
from imtrans.errors import DataError, join_names, printable


class PictureFolder:
    """The pictures of a folder, in order; a `imtrans.data.cache.ImageSource`.

    Args:
        owner: the data set's name, for the messages.
        folder: of pictures.
        name: of a picture in what `load` returns.
        jitter: resizes them.
        size: height and width that they are resized to.
        on_bad_image: see `imtrans.data.file_checks.check_files`; `bad_images` has a report of each that was left out.

    Raises:
        ArgumentError: another `on_bad_image`.
        DataError: an empty or missing folder, an unreadable file, no sound one; with the names of the files.
    """

    def __init__(
        self, owner: str, folder: str | PathLike[str], *, name: str, jitter: Jitter, size: int, on_bad_image: str
    ) -> None:
        self.folder, self.name, self.jitter, self.size = Path(folder), name, jitter, size
        paths = image_files(self.folder)
        if not paths:
            raise DataError(f"{printable(self.folder)} holds no pictures. Put some (.png, .jpg, .tif, .webp) in it.")
        sound, self.bad_images = check_files(
            owner,
            paths,
            check_header=image_size,
            decode=lambda path: read_image(path).size,
            on_bad_image=on_bad_image,
        )
        self.paths = [path for path, _ in sound]
        self.sizes = sorted({size for _, size in sound})

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Batch:
        """Picture `index`, decoded and resized: a uint8 tensor ``(3, size, size)``, by name."""
        return {self.name: self.jitter.load([read_image(self.paths[index])], self.size)[0]}

    def __repr__(self) -> str:
        sizes = join_names([f"{width}x{height}" for width, height in self.sizes], most=3)
        bad = f" ({len(self.bad_images)} bad ones left out)" if self.bad_images else ""
        return f"{len(self)} pictures in {printable(self.folder)}{bad}, {sizes} pixels"
