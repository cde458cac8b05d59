"""Loading a saved network without knowing its class."""

from os import PathLike

from imtrans.errors import SavedModelError, did_you_mean, short_repr
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import CONFIG, SavedModel
from imtrans.nn.local_enhancer import LocalEnhancer
from imtrans.nn.multiscale import MultiscaleDiscriminator
from imtrans.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator

_GENERATORS = (UNetGenerator, ResnetGenerator, LocalEnhancer)
_DISCRIMINATORS = (PatchDiscriminator, PixelDiscriminator, MultiscaleDiscriminator)
CLASSES: dict[str, type[Pretrained]] = {cls.__name__: cls for cls in (*_GENERATORS, *_DISCRIMINATORS)}


def load_pretrained(
    name: str | PathLike[str], *, revision: str | None = None, token: str | None = None, subfolder: str | None = None
) -> Pretrained:
    """Load a saved network of any class of imtrans, in evaluation mode, on the CPU. ``config.json`` names the class.

    Args:
        name: a folder, or ``"user/repo"`` on the Hub if there is no such folder.
        revision: branch, tag or commit of the repo.
        token: access token of an account that may read the repo.
        subfolder: subfolder of the folder or repo.

    Raises:
        SavedModelError: there is no saved network of imtrans, or it is damaged.
        HubError: the repo cannot be fetched.
    """
    saved = SavedModel(name, revision, token, subfolder)
    config = saved.config()
    kind = config["class"]
    if kind not in CLASSES:
        raise SavedModelError(
            f"{CONFIG} of {saved} names the class {short_repr(kind)}, which is not one of {', '.join(CLASSES)}."
            f"{did_you_mean(kind, CLASSES)} Load a class of your own with its from_pretrained."
        )
    return CLASSES[kind].from_saved(saved, config)
