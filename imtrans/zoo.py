"""The right class for a saved network."""

from os import PathLike
from pathlib import Path

from imtrans.errors import SavedModelError, hint
from imtrans.patchgan import PatchDiscriminator, PixelDiscriminator
from imtrans.pretrained import CONFIG, Pretrained, read_config
from imtrans.resnet import ResnetGenerator
from imtrans.unet import UNetGenerator

CLASSES: dict[str, type[Pretrained]] = {
    cls.__name__: cls for cls in (UNetGenerator, ResnetGenerator, PatchDiscriminator, PixelDiscriminator)
}


def load_pretrained(folder: str | PathLike[str]) -> Pretrained:
    """Make the network that `folder` holds, of the class it names, with its weights, in evaluation mode.

    Raises:
        SavedModelError: the folder holds no saved network of imtrans, or a damaged one.
    """
    folder = Path(folder)
    name = read_config(folder)["class"]
    if name not in CLASSES:
        raise SavedModelError(
            f"{folder / CONFIG} names the class {name!r}, which imtrans does not have.{hint(name, CLASSES)} "
            f"It has {', '.join(CLASSES)}. A class of your own loads with its own from_pretrained."
        )
    return CLASSES[name].from_pretrained(folder)
