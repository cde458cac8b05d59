"""Data for colorization: the lightness of an image as source, its colour channels as target."""

from os import PathLike

from imtrans.data.crop_dataset import Size
from imtrans.data.derived import DerivedPairs


class LabImages(DerivedPairs):
    """A folder of images in CIE Lab, `DerivedPairs` with the source ``"lab"``; arguments and errors as there.

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
        super().__init__(
            folder, "lab", size=size, load_size=load_size, augment=augment, flip=flip, seed=seed,
            on_bad_image=on_bad_image,
        )  # fmt: skip
