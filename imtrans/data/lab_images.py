"""Data for colorization: the lightness of an image as source, its colour channels as target."""

from os import PathLike

from imtrans.checks import at_least
from imtrans.colours import LAB
from imtrans.data.crop_dataset import Batch, Jitter, SingleSourceDataset, Size
from imtrans.data.image_folder import ImageFolder


class LabDataset(SingleSourceDataset):
    """Base class of data sets that load and cache RGB images as ``"rgb"`` and return samples in CIE Lab."""

    def sample(self, crops: Batch) -> Batch:
        """Split RGB crops into lightness and colour."""
        source, target = LAB.split(crops["rgb"])
        return {"source": source, "target": target}


class LabImages(ImageFolder, LabDataset):
    """A folder of images in CIE Lab; arguments and errors as for `imtrans.data.paired.PairedImages`.

    A sample is ``{"source": (1, size, size), "target": (2, size, size)}`` in [-1, 1]: L, and a and b, scaled as in
    `imtrans.colours.split_lab`. It is a function of (seed, epoch, index).
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        size: Size = 256,
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        self.jitter, self.augment = Jitter(size, load_size, flip), augment
        self.seed = at_least("LabImages", "seed", seed, 0)
        super().__init__("LabImages", folder, name="rgb", size=self.loaded_shape, on_bad_image=on_bad_image)

    @property
    def settings(self) -> str:
        """The ``repr`` without the facts that depend on the files."""
        return f"{super().settings}, grey to colour, {self._describe_crops()}"

    def __repr__(self) -> str:
        return f"{super().__repr__()}, grey to colour, {self._describe_crops()}"
