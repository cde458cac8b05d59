"""A picture in, a picture out."""

from typing import Any

import torch
from torch import Tensor, nn

from imtrans.checks import at_least, one_of
from imtrans.data.codec import Picture, decode_for
from imtrans.errors import ArgumentError
from imtrans.inference.tiling import plan_tiles, run_tiled
from imtrans.modes import MODES, running_as


@torch.no_grad()
def translate(
    generator: nn.Module,
    image: Picture,
    *,
    mode: str | None = None,
    tile: int | None = None,
    precision: str | None = None,
) -> Any:
    """Translate a picture, or a batch of them, with a trained generator; the same kind comes back.

    =========================================  ===============================  =====================
    in                                         values                           out
    =========================================  ===============================  =====================
    a path, a PIL image of any mode            8-bit; 16-bit or float grey      a PIL image
    an array ``h w``, ``h w c``, ``b h w c``   uint8, uint16, floats in [0, 1]  an array of that dtype
    a tensor ``c h w``, ``b c h w``            floats in [-1, 1]                a tensor of that dtype
    =========================================  ===============================  =====================

    A generator whose attribute `colours` is ``"lab"`` (see `imtrans.Colorization`) gives colours to grey pictures, of
    any of these kinds, or to the lightness of coloured ones. What comes back has three channels, and that lightness.

    Any height and width. The generator runs where it is, and comes back exactly as it was: training flags, running
    statistics, hooks.

    Args:
        generator: maps ``(b, c, h, w)`` to ``(b, c', h, w)``, and tells ``c`` in its attribute ``in_channels``.
        image: as above.
        mode: ``"eval" | "batch_stats" | "paper"``, see `imtrans.modes.running_as`; None for the generator's own
            `inference_mode`. With ``"paper"``, dropout draws from PyTorch's global generator.
        tile: height and width of the tiles to cut a large picture into, so that memory on the generator's device does
            not grow with it; rounded up to the generator's stride (its attribute `size_multiple`, if it has one).
            Tiles overlap by what the receptive field asks. Where that fits, as a `ResnetGenerator`'s does in tiles of
            512, the result is that of the whole picture. A deep U-Net sees the whole picture from every pixel: its
            tiles are an approximation, faded into one another. Norms that take statistics from the image get those of
            the whole picture; each such norm costs a further pass over the tiles.
        precision: ``"bf16"`` runs under autocast; ``"fp32"`` or None as the weights are.

    Raises:
        ArgumentError: a value that is not allowed, or a picture of another type, dtype or range.
        ShapeError: another number of axes or channels, no pixels; with `tile`, an output of another size.
        DataError: a file that cannot be read.

    >>> from imtrans import UNetGenerator
    >>> generator = UNetGenerator(base_channels=4, depth=3)
    >>> translate(generator, torch.zeros(3, 50, 40)).shape
    torch.Size([3, 50, 40])
    """
    channels, mode = check_generator("translate", generator, mode, precision)
    if tile is not None:
        at_least("translate", "tile", tile, 1)
    decoded = decode_for("translate", image, generator)
    weights = next(generator.parameters(), decoded.tensor)

    def run(source: Tensor) -> Tensor:
        with torch.autocast(weights.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return generator(source.to(weights.device, weights.dtype))

    with running_as(generator, mode):
        if tile is None:
            fake = run(decoded.tensor)
        else:
            multiple = getattr(generator, "size_multiple", 1)
            tiling = plan_tiles(generator, tile, multiple=multiple, in_channels=channels)
            fake = run_tiled(generator, decoded.tensor, tiling, run)
    return decoded.encode(fake)


def check_generator(owner: str, generator: nn.Module, mode: str | None, precision: str | None) -> tuple[int, str]:
    """How many channels `generator` takes, and in which mode it runs if `mode` is asked for.

    Raises:
        ArgumentError: it does not tell its channels, or `mode` or `precision` is not allowed.
    """
    channels = getattr(generator, "in_channels", None)
    if not isinstance(channels, int):
        raise ArgumentError(
            f"{owner}: {type(generator).__name__} must tell the channels of its source in an attribute in_channels, "
            f"got {channels!r}."
        )
    if precision is not None:
        one_of(owner, "precision", precision, ("fp32", "bf16"))
    chosen = getattr(generator, "inference_mode", "eval") if mode is None else mode
    return channels, one_of(owner, "mode", chosen, MODES)
