"""Translation of images with a trained generator."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.checks import at_least, one_of
from imtrans.data.codec import Picture, decode_for
from imtrans.errors import ArgumentError
from imtrans.inference.tiling import plan_tiles, run_tiled
from imtrans.modes import MODES, running_as, unwrap
from imtrans.nn.noise import check_samples, noise_channels
from imtrans.runtime import seeded


@torch.no_grad()
def translate(
    generator: nn.Module,
    image: Picture | Sequence[Picture],
    *,
    instances: Picture | Sequence[Picture] | None = None,
    mode: str | None = None,
    tile: int | None = None,
    precision: str | None = None,
    samples: int | None = None,
    seed: int | None = None,
) -> Any:
    """Translate an image, or a batch of images, with a trained generator, and return the same kind.

    With `samples`, return a list of that many different outputs.

    =========================================  ===============================  =====================
    input                                      values                           output
    =========================================  ===============================  =====================
    a path, a PIL image of any mode            8-bit; 16-bit or float grey      a PIL image
    a path to a ``.npy`` or ``.npz`` file      as for an array                  an array of that dtype
    an array ``h w``, ``h w c``, ``b h w c``   uint8, uint16, floats in [0, 1]  an array of that dtype
    a tensor ``c h w``, ``b c h w``            floats in [-1, 1]                a tensor of that dtype
    a list of these, of one height and width   as for each                      a list
    =========================================  ===============================  =====================

    Height and width are arbitrary. The images of a list are one batch: where norms take their statistics from the
    batch, an output depends on the other images. The generator runs on its device and is left unchanged. Its attributes
    may ask for other values:

    - `colours` is ``"lab"`` (see `imtrans.Colorization`): it uses the lightness of grey or colour images; the output
      has three channels and that lightness.
    - `colours` is ``"rgba"`` (see `imtrans.Inpainting`): it fills the transparent part of an image of four channels and
      keeps the other pixels; the output has three. An image file or PIL image without transparency comes back as it is.
    - `palette`: it takes painted label maps, of three channels.
    - `num_labels`: it takes maps of class ids, and gives 8-bit images: grey images, images with a colour table, or
      arrays of integers, ``h w``, ``h w 1`` or ``b h w 1``. Tensors are one-hot already.
    - `value_range`: images of more than 8 bits have these values, in any dtype, before and after.

    Args:
        generator: maps ``(b, c, h, w)`` to ``(b, c', h, w)``, with ``c`` in its attribute ``in_channels``.
        image: see the table.
        instances: an id of the object for each pixel, for a generator whose `instances` is True: a path, a grey PIL
            image, or an array of integers; for a list of images a list. Its `imtrans.data.labels.edges` are the last
            channel of the source.
        mode: ``"eval" | "batch_stats" | "paper"``, see `imtrans.modes.running_as`; None for the generator's
            `inference_mode`. With ``"paper"``, dropout is random; see `seed`. Noise is random in every mode.
        tile: size of overlapping tiles, which limit the memory that a large image needs; rounded up to the generator's
            stride (attribute `size_multiple`). If the receptive field fits in a tile, as a `ResnetGenerator`'s does in
            512 pixels, the result equals the untiled one. Otherwise, as with a deep U-Net, it approximates it. Norms
            use the statistics of the whole image; each norm that needs them costs one more pass over the tiles.
        precision: ``"bf16"`` runs under autocast; ``"fp32"`` or None in the dtype of the weights.
        samples: number of outputs, for a generator with `noise_channels`, or with dropout in ``"paper"``; None for one
            output, which is not in a list.
        seed: seed of the noise, and of the dropout in ``"paper"``, so that two calls give the same image; the global
            random state is left unchanged. None draws from PyTorch's global generator. The noise is drawn on the CPU
            before the first output: sample k of a seed has the same noise on each device, for any number of samples,
            and for each image that is translated in a call of its own.

    Raises:
        ArgumentError: a value that is not allowed, `samples` of a generator whose outputs are equal, or an image of
            another type, dtype or range.
        ShapeError: wrong axes or channels, or no pixels; with `tile`, an output of another size.
        DataError: a file that cannot be read.

    >>> from imtrans import UNetGenerator
    >>> generator = UNetGenerator(base_channels=4, depth=3)
    >>> translate(generator, torch.zeros(3, 50, 40)).shape
    torch.Size([3, 50, 40])
    >>> noisy = UNetGenerator(base_channels=4, depth=3, noise_channels=8)
    >>> [output.shape for output in translate(noisy, torch.zeros(3, 50, 40), samples=2, seed=0)]
    [torch.Size([3, 50, 40]), torch.Size([3, 50, 40])]
    """
    channels, mode = check_generator("translate", generator, mode, precision)
    if samples is not None:
        check_samples("translate", generator, mode, samples)
    if tile is not None:
        at_least("translate", "tile", tile, 1)
    decoded = decode_for("translate", image, generator, instances)
    weights = next(generator.parameters(), decoded.tensor)

    def run(noise: list[Tensor], source: Tensor) -> Tensor:
        with torch.autocast(weights.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return generator(source.to(weights.device, weights.dtype), *(z.to(weights) for z in noise))

    with running_as(generator, mode), seeded("translate", seed, weights.device):
        noises = sample_noises(generator, decoded.tensor, samples)
        if tile is None:
            outputs = [decoded.encode(run(noise, decoded.tensor)) for noise in noises]
        else:
            generator = unwrap(generator)  # tiles need hooks and the trace of plain modules
            multiple = getattr(generator, "size_multiple", 1)
            tiling = plan_tiles(generator, tile, multiple=multiple, in_channels=channels)
            runs = (partial(run, noise) for noise in noises)
            outputs = [decoded.encode(run_tiled(generator, decoded.tensor, tiling, each)) for each in runs]
    return outputs[0] if samples is None else outputs


def sample_noises(generator: nn.Module, source: Tensor, samples: int | None) -> list[list[Tensor]]:
    """Return the arguments of the generator after the source, for each sample: noise ``(b, n)``, or none."""
    count = noise_channels(generator)
    return [[torch.randn(len(source), count)] if count else [] for _ in range(1 if samples is None else samples)]


def check_generator(owner: str, generator: nn.Module, mode: str | None, precision: str | None) -> tuple[int, str]:
    """Return the generator's input channels and mode, or raise ArgumentError for what `translate` does not allow."""
    generator = unwrap(generator)
    if not isinstance(generator, nn.Module):
        raise ArgumentError(
            f"{owner}: the generator must be an nn.Module, got a {type(generator).__name__}. Load saved weights with "
            "load_pretrained(name)."
        )
    channels = getattr(generator, "in_channels", None)
    if not isinstance(channels, int):
        raise ArgumentError(
            f"{owner}: {type(generator).__name__} needs an attribute in_channels, the number of channels of its input, "
            f"got {channels!r}."
        )
    if precision is not None:
        one_of(owner, "precision", precision, ("fp32", "bf16"))
    chosen = getattr(generator, "inference_mode", "eval") if mode is None else mode
    return channels, one_of(owner, "mode", chosen, MODES)
