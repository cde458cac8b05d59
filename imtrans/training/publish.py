"""What a training run gives to the world: its networks, each in a folder with a card and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from imtrans.data.images import to_image
from imtrans.errors import SavedModelError
from imtrans.files import write_atomic
from imtrans.hub.client import push
from imtrans.hub.model_card import CARD, SAMPLES, SOURCE, model_card, run_card
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import writing
from imtrans.methods.base import Method
from imtrans.training.report.image_grid import column_titles, image_grid_png


@dataclass(frozen=True)
class TrainingSummary:
    """How a network came to be: for its card.

    Args:
        training: names and values.
        validation: what `imtrans.evaluation.evaluate.compare_modes` returned.
        columns: pictures of a sample row, each ``(b, c, h, w)``.
    """

    training: Mapping[str, Any]
    validation: Mapping[str, Any] | None = None
    columns: Mapping[str, Tensor] | None = None


def publish(
    folder: Path,
    network: Pretrained,
    provenance: TrainingSummary,
    *,
    product: str = "",
    repo_id: str | None = None,
    subfolder: str | None = None,
) -> None:
    """Save `network` to `folder`, with its card, a source to try it on, and sample rows.

    The card is that of a repo, or of its `subfolder`, if there is a `repo_id`, else that of the folder. The source is
    what the product of this name translates: see `imtrans.methods.base.Method.preview`.

    Raises:
        SavedModelError: the network cannot be described, or the folder cannot be written.
    """
    network.save_pretrained(folder)
    columns = provenance.columns or {}
    source = _before(product, list(columns))
    pictures = source in columns and all(column.shape[1] in (1, 3) for column in columns.values())
    card = model_card(
        repo_id or folder.as_posix(),
        network.description(),
        network.num_parameters(),
        training=provenance.training,
        validation=provenance.validation,
        columns=column_titles(columns) if pictures else "",
        subfolder=subfolder,
        local=repo_id is None,
    )
    with writing(folder):
        if pictures:
            to_image(columns[source][0]).save(folder / SOURCE)
            write_atomic(folder / SAMPLES, image_grid_png(columns))
        write_atomic(folder / CARD, card.encode())


def _before(product: str, columns: list[str]) -> str:
    """The column that a product translates: the one before its own, or ``"source"``."""
    return columns[columns.index(product) - 1] if product in columns[1:] else "source"


def save_method(folder: Path, repo_id: str, method: nn.Module, provenance: TrainingSummary) -> None:
    """Save the networks of a method as a repo: its product at the root, the others in subfolders.

    A method with several products (a translator for each direction) has all of its networks in subfolders, each product
    with a card of its own, and at the root a card that lists them.

    Raises:
        SavedModelError: it has no network that can be saved, or as for `publish`.
    """
    networks = {name: child for name, child in method.named_children() if isinstance(child, Pretrained)}
    if not networks:
        raise SavedModelError(
            f"{type(method).__name__} has no network that can be saved: none of its children is one of imtrans's, or "
            "derives from imtrans.hub.pretrained.Pretrained. Use one that does, or save tensors with safetensors."
        )
    products = method.products() if isinstance(method, Method) else {}
    alone = len(products) == 1
    for name, network in products.items():
        where, subfolder = (folder, None) if alone else (folder / name, name)
        publish(where, network, provenance, product=name, repo_id=repo_id, subfolder=subfolder)
    others = {name: network for name, network in networks.items() if network not in products.values()}
    for name, network in others.items():
        network.save_pretrained(folder / name)
    if not alone:
        kinds = {name: type(network).__name__ for name, network in {**products, **others}.items()}
        with writing(folder):
            write_atomic(folder / CARD, run_card(repo_id, type(method).__name__, kinds).encode())


def push_method(repo_id: str, method: nn.Module, provenance: TrainingSummary, **settings: Any) -> str:
    """Push what `save_method` writes; `settings`, what is returned and raised: as for `imtrans.hub.client.push`."""
    with TemporaryDirectory() as folder:
        save_method(Path(folder), repo_id, method, provenance)
        return push(Path(folder), repo_id, **settings)
