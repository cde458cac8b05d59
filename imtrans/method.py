"""What a method of image-to-image translation is, to those who train and evaluate it."""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

from imtrans.loading import Batch
from imtrans.pretrained import Pretrained


@runtime_checkable
class Method(Protocol):
    """An `nn.Module` that holds its networks, and has these four methods."""

    def make_optimizers(self, lr: float, betas: tuple[float, float]) -> dict[str, Optimizer]:
        """The optimizers that `step` takes."""

    def step(self, batch: Batch, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """Train on one batch; return the losses as detached scalars.

        It reads no value of a tensor, and updates through `imtrans.optimizing.update`, which knows the scale of fp16.
        """

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Columns of pictures ``(b, c, h, w)``; with ``"fake"`` and ``"target"`` among them, it can be validated."""

    def products(self) -> dict[str, Pretrained]:
        """The networks that a run leaves behind, by the name of the folder that each is saved to."""


def decay_factor(epoch: int, *, epochs: int, decay_epochs: int) -> float:
    """The share of the learning rate at which `epoch` (0, 1, ...) is trained.

    1 for ``epochs - decay_epochs`` epochs, then down a straight line that would reach 0 after the last one.

    >>> [round(decay_factor(e, epochs=4, decay_epochs=2), 3) for e in range(4)]
    [1.0, 1.0, 0.667, 0.333]
    """
    return 1.0 - max(0, epoch + 1 - (epochs - decay_epochs)) / (decay_epochs + 1)
