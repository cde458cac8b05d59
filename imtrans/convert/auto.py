"""Loading a saved network without knowing its class."""

from os import PathLike
from typing import Any

import torch

from imtrans.convert.huggan import HugGANModel
from imtrans.convert.published import PublishedModel, is_published
from imtrans.errors import ArgumentError, HubError, SavedModelError, did_you_mean, short_repr
from imtrans.hub.client import is_missing
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import CONFIG, SavedModel
from imtrans.nn.huggan import HugGANGenerator
from imtrans.nn.local_enhancer import LocalEnhancer
from imtrans.nn.multiscale import MultiscaleDiscriminator
from imtrans.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from imtrans.nn.resnet import ResnetGenerator
from imtrans.nn.unet import UNetGenerator

_GENERATORS = (UNetGenerator, ResnetGenerator, LocalEnhancer, HugGANGenerator)
_DISCRIMINATORS = (PatchDiscriminator, PixelDiscriminator, MultiscaleDiscriminator)
CLASSES: dict[str, type[Pretrained]] = {cls.__name__: cls for cls in (*_GENERATORS, *_DISCRIMINATORS)}


def load_pretrained(
    name: str | PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    subfolder: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    in_channels: int | None = None,
    out_channels: int | None = None,
    sha256: str | None = None,
) -> Pretrained:
    """Load a saved network of any class of imtrans, in evaluation mode. ``config.json`` names the class.

    A repo or folder with a generator of HugGAN's pix2pix, such as ``"huggan/pix2pix-night2day"``, becomes a
    `HugGANGenerator`. Its file ``pytorch_model.bin`` may hold only tensors, and no code in it is run.

    Args:
        name: a folder; or, if there is no such folder, ``"user/repo"`` on the Hub, or a name in
            `imtrans.published_weights`, such as ``"junyanz/pix2pix/facades_label2photo"``.
        revision: branch, tag or commit of the repo.
        token: access token of an account that may read the repo.
        subfolder: subfolder of the folder or repo.
        device: this, `dtype`, `in_channels` and `out_channels` as for `Pretrained.from_pretrained`.
        sha256: digest that the file of published weights must have, in hexadecimal.

    Raises:
        SavedModelError: there is no saved network of imtrans, it is damaged, or it cannot be adapted.
        HubError: the repo cannot be fetched.
        DataError: the published weights cannot be fetched.
        ArgumentError: a device, dtype or number of channels that is not allowed; an unknown name of published weights,
            or an option that does not go with `name`.
    """
    saved: SavedModel
    if is_published(name):
        saved = PublishedModel(name, revision, token, subfolder, sha256)
        config = saved.config()
    elif sha256 is None:
        saved, config = _saved_model(name, revision, token, subfolder)
    else:
        raise ArgumentError(
            f"load_pretrained: sha256 is for the names in imtrans.published_weights(), not for {name}, whose {CONFIG} "
            "holds the digest of the weights. Leave sha256 out."
        )
    kind = config["class"]
    if kind not in CLASSES:
        raise SavedModelError(
            f"{CONFIG} of {saved} names the class {short_repr(kind)}, which is not one of {', '.join(CLASSES)}."
            f"{did_you_mean(kind, CLASSES)} Load a class of your own with its from_pretrained."
        )
    return CLASSES[kind].from_saved(
        saved, config, device=device, dtype=dtype, in_channels=in_channels, out_channels=out_channels
    )


def _saved_model(name: str | PathLike[str], *place: str | None) -> tuple[SavedModel, dict[str, Any]]:
    saved = SavedModel(name, *place)
    try:
        return saved, saved.config()
    except (HubError, SavedModelError) as error:
        theirs = HugGANModel(name, *place)
        if (isinstance(error, HubError) and not is_missing(error)) or not theirs.exists():
            raise
    return theirs, theirs.config()
