"""The interface of a method: `Method` and `Translation`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imtrans.colours import colour_space, hues
from imtrans.data.labels import colours_from_ids
from imtrans.data.loader import Batch
from imtrans.errors import ArgumentError
from imtrans.modes import unwrap


@dataclass(frozen=True)
class Translation:
    """One translation that a method learns: a network, and the columns of its source, output and target.

    Args:
        name: folder that the network is saved to.
        network: maps source to output, ``(b, c, h, w) -> (b, c', h, w)``. See `imtrans.hub.foreign.describe`.
        source: column of its input, a key of the batch.
        output: column of its output.
        target: column that the output is compared with, a key of the batch. It may be absent.
        inverse: translates the output back, shown as the column ``cycled_{source}``.
        paired: whether the method trains on pairs. If not, only data sets with ``paired = True`` are validated on.
    """

    name: str
    network: nn.Module
    source: str = "source"
    output: str = "fake"
    target: str = "target"
    inverse: nn.Module | None = None
    paired: bool = True

    @torch.no_grad()
    def columns(self, batch: Batch, *, cycle: bool = True) -> dict[str, Tensor]:
        """Translate a batch; return the pictures ``(b, c, h, w)`` by column name.

        The order is source, output, cycled source (with an `inverse` and `cycle`), target (if the batch has one). With
        a colour space of the network, source, output and target become RGB pictures; with labels, the source does.
        """
        source = batch[self.source]
        output = self.network(source)
        columns = {self.source: source, self.output: output}
        if cycle and self.inverse is not None:
            columns[f"cycled_{self.source}"] = self.inverse(output)
        if self.target in batch:
            columns[self.target] = batch[self.target]
        if (space := colour_space(unwrap(self.network))) is not None:
            columns[self.source] = source.new_zeros(len(source), len(space.target), *source.shape[2:])
            for name in columns.keys() & {self.source, self.output, self.target}:
                columns[name] = space.join(source, columns[name])
        network = unwrap(self.network)
        palette, num_labels = (getattr(network, name, None) for name in ("palette", "num_labels"))
        if isinstance(num_labels, int):
            palette = hues(num_labels)
        edges = getattr(network, "instances", None) is True
        if isinstance(palette, tuple) and source.shape[1] == len(palette) + edges:
            columns[self.source] = colours_from_ids(source[:, : len(palette)].argmax(dim=1), palette)
        return columns

    def output_and_target(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Translate a batch; return output and target ``(b, c, h, w)``, or None if the batch lacks one's column."""
        if self.source not in batch or self.target not in batch:
            return None
        columns = self.columns(batch, cycle=False)
        return columns[self.output], columns[self.target]


@runtime_checkable
class Method(Protocol):
    """An `nn.Module` that holds its networks and has these three methods.

    A method whose result depends on settings, such as loss weights, has ``settings()`` too. It returns them as
    a dict of JSON values. They stand in ``config.json``, and a run with other settings cannot be resumed.
    """

    def make_optimizers(self, lr: float, betas: tuple[float, float]) -> dict[str, Optimizer]:
        """Make the optimizers that `step` takes."""

    def step(self, batch: Batch, optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
        """Train on one batch; return the losses as detached scalars.

        A step reads no tensor's value on the host. It updates through `imtrans.methods.optim.step`, which applies the
        fp16 loss scale and sums gradients over processes.
        """

    def translations(self) -> Sequence[Translation]:
        """Return the translations that the method learns; an empty sequence saves and validates nothing."""


def sample_columns(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return the pictures ``(b, c, h, w)``, by column, of the translations whose source is in the batch, each once."""
    columns: dict[str, Tensor] = {}
    for translation in method.translations():
        if translation.source in batch:
            for name, column in translation.columns(batch).items():
                columns.setdefault(name, column)
    return columns


def check_method(owner: str, value: object) -> Method:
    """Return `value`, or raise ArgumentError: it is no method, or two translations have one name or output column."""
    if not isinstance(value, Method):
        hint = "For a generator and a discriminator, use Pix2Pix(generator, discriminator)."
        if hasattr(value, "preview") or hasattr(value, "products"):
            hint = "It replaces preview and products: return a Translation(name, network) for each network to save."
        raise ArgumentError(
            f"{owner}: {type(value).__name__} is not a method. A method is an nn.Module with make_optimizers, step and "
            f"translations. {hint}"
        )
    translations = value.translations()
    for field in ("name", "output"):
        values = [getattr(translation, field) for translation in translations]
        if len(set(values)) < len(values):
            raise ArgumentError(
                f"{owner}: the translations of {type(value).__name__} must differ in {field}, got {values}."
            )
    return value
