"""The model card: metadata and metrics for the Hub, the architecture, the training, and code that runs."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imtrans.colours import COLOUR_SPACES

CARD = "README.md"
SOURCE, SAMPLES = "source.png", "samples.png"


def model_card(
    name: str,
    description: Mapping[str, Any],
    parameters: int,
    *,
    training: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
    columns: str = "",
    subfolder: str | None = None,
    local: bool = False,
) -> str:
    """Write the model card of a saved network.

    Args:
        name: the repo or folder, as `load_pretrained` takes it.
        description: the content of ``config.json``.
        parameters: number of parameters.
        training: names and values that describe the training.
        validation: what `imtrans.evaluation.evaluate.compare_modes` returned. The metrics of the network's own mode are
            in the metadata too.
        columns: titles of the columns of `SAMPLES`; empty if the folder of the card has no `SAMPLES`. It then has a
            `SOURCE` too, unless the network `takes_no_picture`.
        subfolder: subfolder of the repo.
        local: whether `name` is a folder.
    """
    kind, arguments = description["class"], description.get("arguments")
    title = f"{name}/{subfolder}" if subfolder else name
    front_matter = _front_matter(kind, title, (validation or {}).get(description["inference_mode"]))
    name_of = kind if arguments is not None else f"{description['module']}.{kind}"
    blocks = [front_matter, f"# {title}", f"A `{name_of}` with {parameters:,} parameters, made with imtrans."]
    if columns:
        blocks.append(f"![{columns}]({SAMPLES})")
    if arguments is None:
        blocks.append("It is not a network of imtrans, which trained it. Build it with the arguments that it had:")
        blocks.append(_code(*description["how_to_load"]))
        blocks.append(f"Its best inference mode is `{description['inference_mode']}`, see `imtrans.running_as`.")
    elif {"in_channels", "out_channels"} <= arguments.keys():
        pictures = bool(columns) and not takes_no_picture(description)
        blocks.append(_snippet(name, subfolder, arguments["in_channels"], pictures, local))
        blocks += _inputs(description)
        blocks.append(f"Its default inference mode is `{description['inference_mode']}`.")
    else:
        blocks.append(_code("from imtrans import load_pretrained", "", f"network = {_loading(name, subfolder)}"))
    if arguments is not None:
        blocks += ["## Architecture", _table(("argument", "value"), arguments.items())]
    if training:
        blocks += ["## Training", _table(("", ""), training.items())]
    if validation:
        blocks += ["## Validation", _metrics(validation)]
    return "\n\n".join(blocks) + "\n"


def training_in(card: str) -> dict[str, Any]:
    """Return the settings of the training in the text of a model card; an empty dict if it has none.

    >>> training_in("## Training\\n\\n|  |  |\\n| --- | --- |\\n| method | Pix2Pix |\\n| steps | 40 |\\n")
    {'method': 'Pix2Pix', 'steps': 40}
    """
    section = re.search(r"^## Training$(.*?)(?=^## |\Z)", card, re.M | re.S)
    rows = re.findall(r"^\| (.+?) \| (.*) \|$", section[1] if section else "", re.M)
    return {name: _value(value) for name, value in rows if name != "---"}


def takes_no_picture(description: Mapping[str, Any]) -> bool:
    """Whether no `SOURCE` shows the input of the network: it takes ids, or transparent holes."""
    return bool(description.get("num_labels") or description.get("instances") or description.get("colours") == "rgba")


def _inputs(description: Mapping[str, Any]) -> list[str]:
    """Describe inputs other than 8-bit images."""
    notes = []
    if description.get("colours") in COLOUR_SPACES:
        notes.append(COLOUR_SPACES[description["colours"]].card)
    if description.get("palette"):
        notes.append("It takes label maps, painted in the colours of the palette in config.json.")
    if description.get("num_labels"):
        notes.append(f"It takes label maps of class ids from 0 to {description['num_labels'] - 1}.")
    if description.get("instances"):
        notes.append("It takes an id of the object for each pixel too: `translate(..., instances=...)`.")
    if description["arguments"].get("noise_channels"):
        notes.append("It takes noise: `translate(..., samples=4, seed=0)` gives four different outputs.")
    if description.get("value_range"):
        low, high = description["value_range"]
        notes.append(f"Images of more than 8 bits have values from {low:g} to {high:g}.")
    return notes


def run_card(repo_id: str, method: str, kinds: Mapping[str, str]) -> str:
    """Write the card of a repo with the networks of a `method`; `kinds` is the class of each by its subfolder."""
    rows = [(f"[{name}]({name})", f"`{kind}`") for name, kind in kinds.items()]
    blocks = [
        _front_matter(method),
        f"# {repo_id}",
        f"The networks of a `{method}`, made with imtrans.",
        _table(("folder", "network"), rows),
        _code("from imtrans import load_pretrained", "", f"network = {_loading(repo_id, next(iter(kinds)))}"),
    ]
    return "\n\n".join(blocks) + "\n"


def _front_matter(kind: str, title: str = "", metrics: Mapping[str, float] | None = None) -> str:
    """Metadata in YAML; `metrics` become the Hub's model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    task, data = "image-to-image", ("validation", "Validation data of the training run")
    results = [
        EvalResult(task, *data, metric_type=metric, metric_name=metric, metric_value=value)
        for metric, value in (metrics or {}).items()
        if math.isfinite(value)  # JSON, the Hub's form, has no other numbers
    ]
    named: dict[str, Any] = {"model_name": title, "eval_results": results} if results else {}
    card = ModelCardData(library_name="imtrans", pipeline_tag=task, tags=["imtrans", task, kind], **named)
    return f"---\n{card.to_yaml()}\n---"


def _loading(name: str, subfolder: str | None) -> str:
    return f"load_pretrained({_quoted(name)}{f', subfolder={_quoted(subfolder)}' if subfolder else ''})"


def _snippet(name: str, subfolder: str | None, in_channels: int, pictures: bool, local: bool) -> str:
    imports = ["from imtrans import load_pretrained, translate", ""]
    loaded = f"generator = {_loading(name, subfolder)}"
    if not pictures:
        source = f"source = torch.zeros({in_channels}, 256, 256)  # or a path, a PIL image, an array"
        return _code("import torch", *imports, loaded, source, "output = translate(generator, source)")
    output = 'translate(generator, picture).save("output.png")'
    if local:
        return _code(*imports, loaded, f"picture = {_quoted(f'{name}/{SOURCE}')}  # or one of your own", output)
    file = f"{subfolder}/{SOURCE}" if subfolder else SOURCE
    picture = f"picture = hf_hub_download({_quoted(name)}, {_quoted(file)})  # or one of your own"
    return _code("from huggingface_hub import hf_hub_download", *imports, loaded, picture, output)


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _metrics(validation: Mapping[str, Any]) -> str:
    modes = {mode: scores for mode, scores in validation.items() if isinstance(scores, Mapping)}
    names = list(next(iter(modes.values())))
    table = _table(["mode", *names], [[mode, *(f"{scores[n]:.4g}" for n in names)] for mode, scores in modes.items()])
    distance = " swd: sliced Wasserstein distance, lower is better." if any(n.endswith("swd") for n in names) else ""
    return f"Means over images in [0, 1]; PSNR in dB.{distance}\n\n{table}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (head, ["---"] * len(head), *rows))


def _value(cell: str) -> Any:
    """Return the value of a `_cell`."""
    text = cell.replace("\\|", "|")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.replace("|", "\\|").replace("\n", " ")
