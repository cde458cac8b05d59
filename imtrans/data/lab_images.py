"""Plain pictures as samples of colorization: the lightness of each, and its colours."""

from os import PathLike

from imtrans.checks import at_least
from imtrans.colours import LAB
from imtrans.data.cache import SingleSourceDataset
from imtrans.data.facades.datasets import ProceduralFacades
from imtrans.data.image_folder import PictureFolder
from imtrans.data.images import Jitter
from imtrans.data.loader import Batch


class _InLab(SingleSourceDataset):
    """SingleSourceDataset in RGB, kept as such, whose samples are in Lab."""

    def sample(self, windows: Batch) -> Batch:
        """The lightness and the colours of the windows."""
        source, target = LAB.split(windows["rgb"])
        return {"source": source, "target": target}


class LabImages(_InLab):
    """SingleSourceDataset of a folder, each taken apart into its lightness and its colours.

    A sample is ``{"source": (1, size, size), "target": (2, size, size)}`` in [-1, 1]: L, and a and b of CIE Lab, scaled
    as `imtrans.colours.split_lab` does. Pictures are resized, kept and cut as RGB bytes, and become Lab
    where the training runs. A picture of any height and width is resized to a square. What is random in a sample is a
    function of (seed, epoch, index) alone.

    Args:
        folder: of pictures.
        size: height and width of a sample.
        load_size: see `imtrans.data.images.Jitter`.
        augment: whether to jitter and flip; without, pictures are resized to `size`.
        flip: see `imtrans.data.images.Jitter`.
        seed: of the augmentation.
        on_bad_image: what becomes of a file that cannot be read: ``"error"`` or ``"skip"``, as for
            `imtrans.data.paired.PairedImages`; with ``"skip"``, `bad_images` reports those that were left out.

    Raises:
        ArgumentError: a size below 1, a negative `seed`, or another `on_bad_image`.
        DataError: an empty or missing folder, an unreadable file, no sound one; with the names of the files.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        size: int = 256,
        load_size: int | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        self.jitter = Jitter(size, load_size, flip)
        self.augment = augment
        self.seed = at_least("LabImages", "seed", seed, 0)
        self.pictures = PictureFolder(
            "LabImages", folder, name="rgb", jitter=self.jitter, size=self.loaded_size, on_bad_image=on_bad_image
        )
        self.bad_images = self.pictures.bad_images

    def __len__(self) -> int:
        return len(self.pictures)

    def load(self, index: int) -> Batch:
        """Picture `index` in RGB, decoded and resized."""
        return self.pictures.load(index)

    def __repr__(self) -> str:
        return f"{self.pictures!r}, grey to colour, as {self.jitter}"


class LabFacades(_InLab, ProceduralFacades):
    """The pictures of the procedural facades, each taken apart into its lightness and its colours.

    A sample is ``{"source": (1, size, size), "target": (2, size, size)}`` in [-1, 1], as in `LabImages`. Arguments and
    errors are those of `ProceduralFacades`.

    >>> sample = LabFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([1, 32, 32]), torch.Size([2, 32, 32]))
    """

    def load(self, index: int) -> Batch:
        """The picture of facade `index` in RGB."""
        return {"rgb": super().load(index)["target"]}

    def __repr__(self) -> str:
        return f"{self.length} procedural facades of seed {self.seed}, grey to colour, as {self.jitter}"
