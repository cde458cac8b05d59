"""Publishing the networks of a run: folders with weights, model card and sample images, here and on the Hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from torch import Tensor, nn

from imtrans.data.images import to_image
from imtrans.errors import SavedModelError
from imtrans.files import write_atomic
from imtrans.hub.client import push
from imtrans.hub.foreign import describe
from imtrans.hub.model_card import CARD, SAMPLES, SOURCE, model_card, run_card, takes_no_picture
from imtrans.hub.pretrained import Pretrained
from imtrans.hub.saved_model import write_saved, writing
from imtrans.methods.base import Method
from imtrans.modes import unwrap
from imtrans.training.report.image_grid import column_titles, image_grid_png


@dataclass(frozen=True)
class TrainingSummary:
    """What a model card says about the training.

    Args:
        training: settings of the run, by name.
        validation: result of `imtrans.evaluation.evaluate.compare_modes`.
        columns: columns of the sample grid, each ``(b, c, h, w)``.
    """

    training: Mapping[str, Any]
    validation: Mapping[str, Any] | None = None
    columns: Mapping[str, Tensor] | None = None


def publish(
    folder: Path,
    network: nn.Module,
    summary: TrainingSummary,
    *,
    source: str = "source",
    repo_id: str | None = None,
    subfolder: str | None = None,
) -> None:
    """Save `network` to `folder`, with its model card, a source image and a sample grid.

    The wrappers of PyTorch are removed. For a network that is not a `Pretrained`, see `imtrans.hub.foreign.describe`.

    The card is for `subfolder` of the repo `repo_id`, or for the folder itself. `source` is the column of the network's
    input; see `imtrans.methods.base.Translation`.

    Raises:
        SavedModelError: the network cannot be described, or the folder cannot be written.
    """
    network = unwrap(network)
    description = describe(network, inference_mode=(summary.validation or {}).get("best", "batch_stats"))
    write_saved(folder, description, network.state_dict())
    columns = summary.columns or {}
    images = source in columns and all(column.shape[1] in (1, 3) for column in columns.values())
    card = model_card(
        repo_id or folder.as_posix(),
        description,
        sum(parameter.numel() for parameter in network.parameters()),
        training=summary.training,
        validation=summary.validation,
        columns=column_titles(columns) if images else "",
        subfolder=subfolder,
        local=repo_id is None,
    )
    with writing(folder):
        if images:
            if not takes_no_picture(description):
                to_image(columns[source][0]).save(folder / SOURCE)
            write_atomic(folder / SAMPLES, image_grid_png(columns))
        write_atomic(folder / CARD, card.encode())


def save_method(folder: Path, repo_id: str, method: nn.Module, summary: TrainingSummary) -> None:
    """Save the networks of a method as a repo: the translation's network at the root, the others in subfolders.

    A method with several translations has all networks in subfolders, and a card at the root that lists them.

    Raises:
        SavedModelError: the method has no network that can be saved, or as for `publish`.
    """
    children = {name: unwrap(child) for name, child in method.named_children()}
    networks = {name: child for name, child in children.items() if isinstance(child, Pretrained)}
    saved = {translation: unwrap(translation.network) for translation in cast(Method, method).translations()}
    if not networks and not saved:
        raise SavedModelError(
            f"{type(method).__name__} has no network that can be saved: none of its children is a network of "
            "imtrans, or derives from imtrans.hub.pretrained.Pretrained. Use one that does, or save tensors with "
            "safetensors."
        )
    alone = len(saved) == 1
    for translation, network in saved.items():
        where, subfolder = (folder, None) if alone else (folder / translation.name, translation.name)
        publish(where, network, summary, source=translation.source, repo_id=repo_id, subfolder=subfolder)
    others = {name: network for name, network in networks.items() if network not in saved.values()}
    for name, network in others.items():
        network.save_pretrained(folder / name)
    if not alone:
        named = {**{translation.name: network for translation, network in saved.items()}, **others}
        kinds = {name: type(network).__name__ for name, network in named.items()}
        with writing(folder):
            write_atomic(folder / CARD, run_card(repo_id, type(method).__name__, kinds).encode())


def push_method(repo_id: str, method: nn.Module, summary: TrainingSummary, **settings: Any) -> str:
    """Push what `save_method` writes. Further arguments, return value and errors as for `imtrans.hub.client.push`."""
    with TemporaryDirectory() as folder:
        save_method(Path(folder), repo_id, method, summary)
        return push(Path(folder), repo_id, **settings)
