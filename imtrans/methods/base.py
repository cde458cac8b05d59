"""What a method of image-to-image translation is, to those who train and evaluate it."""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

from imtrans.data.loader import Batch
from imtrans.errors import ArgumentError
from imtrans.hub.pretrained import Pretrained


@runtime_checkable
class Method(Protocol):
    """An `nn.Module` that holds its networks, and has these four methods."""

    def make_optimizers(self, lr: float, betas: tuple[float, float]) -> dict[str, Optimizer]:
        """The optimizers that `step` takes."""

    def step(self, batch: Batch, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """Train on one batch; return the losses as detached scalars.

        It reads no value of a tensor, and updates through `imtrans.methods.optim.step`, which knows the fp16 scale.
        """

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Columns of pictures ``(b, c, h, w)``; with ``"fake"`` and ``"target"`` among them, it can be validated.

        A product translates the column ``"source"``; or, if a column has the product's name, the one before that.
        """

    def products(self) -> dict[str, Pretrained]:
        """The networks that a run leaves behind, by the name of the folder that each is saved to."""


def check_method(owner: str, thing: object) -> Method:
    """Return `thing` if it is a method.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(thing, Method):
        return thing
    wanted = ", ".join(name for name in vars(Method) if not name.startswith("_"))
    raise ArgumentError(
        f"{owner}: {type(thing).__name__} is no method. A method is an nn.Module with {wanted}; for a generator and a "
        "discriminator, that is Pix2Pix(generator, discriminator)."
    )
