"""Loading a saved network without knowing its class."""

from os import PathLike

import torch

from imtrans.convert.published import PublishedModel, is_published
from imtrans.errors import ArgumentError, SavedModelError, did_you_mean, short_repr
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
    if is_published(name):
        saved: SavedModel = PublishedModel(name, revision, token, subfolder, sha256)
    elif sha256 is None:
        saved = SavedModel(name, revision, token, subfolder)
    else:
        raise ArgumentError(
            f"load_pretrained: sha256 is for the names in imtrans.published_weights(), not for {name}, whose {CONFIG} "
            "holds the digest of the weights. Leave sha256 out."
        )
    config = saved.config()
    kind = config["class"]
    if kind not in CLASSES:
        raise SavedModelError(
            f"{CONFIG} of {saved} names the class {short_repr(kind)}, which is not one of {', '.join(CLASSES)}."
            f"{did_you_mean(kind, CLASSES)} Load a class of your own with its from_pretrained."
        )
    return CLASSES[kind].from_saved(
        saved, config, device=device, dtype=dtype, in_channels=in_channels, out_channels=out_channels
    )
