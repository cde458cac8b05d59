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
    source: str = "source",
    repo_id: str | None = None,
    subfolder: str | None = None,
) -> None:
    """Save `network` to `folder`, with its card, a source to try it on, and sample rows.

    The card is that of a repo, or of its `subfolder`, if there is a `repo_id`, else that of the folder. `source` names
    the column of the pictures that the network translates: see `imtrans.methods.base.Translation`.

    Raises:
        SavedModelError: the network cannot be described, or the folder cannot be written.
    """
    network.save_pretrained(folder)
    columns = provenance.columns or {}
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


def save_method(folder: Path, repo_id: str, method: nn.Module, provenance: TrainingSummary) -> None:
    """Save the networks of a method as a repo: that of its translation at the root, the others in subfolders.

    A method with several translations has all of its networks in subfolders. Each translation has a card of its own
    there, and the card at the root lists them.

    Raises:
        SavedModelError: it has no network that can be saved, or as for `publish`.
    """
    networks = {name: child for name, child in method.named_children() if isinstance(child, Pretrained)}
    if not networks:
        raise SavedModelError(
            f"{type(method).__name__} has no network that can be saved: none of its children is one of imtrans's, or "
            "derives from imtrans.hub.pretrained.Pretrained. Use one that does, or save tensors with safetensors."
        )
    translations = method.translations() if isinstance(method, Method) else ()
    saved = {t: t.network for t in translations if isinstance(t.network, Pretrained)}
    alone = len(saved) == 1
    for translation, network in saved.items():
        where, subfolder = (folder, None) if alone else (folder / translation.name, translation.name)
        publish(where, network, provenance, source=translation.source, repo_id=repo_id, subfolder=subfolder)
    others = {name: network for name, network in networks.items() if network not in saved.values()}
    for name, network in others.items():
        network.save_pretrained(folder / name)
    if not alone:
        named = {**{translation.name: network for translation, network in saved.items()}, **others}
        kinds = {name: type(network).__name__ for name, network in named.items()}
        with writing(folder):
            write_atomic(folder / CARD, run_card(repo_id, type(method).__name__, kinds).encode())


def push_method(repo_id: str, method: nn.Module, provenance: TrainingSummary, **settings: Any) -> str:
    """Push what `save_method` writes; `settings`, what is returned and raised: as for `imtrans.hub.client.push`."""
    with TemporaryDirectory() as folder:
        save_method(Path(folder), repo_id, method, provenance)
        return push(Path(folder), repo_id, **settings)
