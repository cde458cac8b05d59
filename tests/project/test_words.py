"""The package, the docs and the examples use the field's names and plain English."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = (".py", ".md", ".html", ".j2", ".toml", ".yml")
PATHS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "mkdocs.yml", "pyproject.toml")]
PATHS += sorted(p for folder in ("imtrans", "docs", "examples") for p in (ROOT / folder).rglob("*") if p.is_file())
TEXTS = {p.relative_to(ROOT).as_posix(): p.read_text() for p in PATHS if p.suffix in SUFFIXES and p.exists()}


def identifier(*names):
    """Matches a name where it is code: called, imported, defined, an attribute, or between backticks."""
    either = "|".join(names)
    return rf"\b(?:{either})\(|(?:import|def|class|as) (?:{either})\b|`(?:{either})`"


OLD_NAMES = {
    "ProcessGroup, rank, run_on_rank0": r"\bWorld\b|\bworld\.place\b|\bfrom_first\b|" + identifier("spread", "largest"),
    "BatchShard, all_reduce_gradients": rf"\badd_up\b|{identifier('Share')}",
    "convert_sync_batchnorm": identifier("synchronise"),
    "cache, BatchLoader, ImageSource, CropDataset": rf"\b(resident|Shelf|CutPictures)\b|{identifier('Feed', 'cuts')}",
    "image_grid": r"\b(import |report[./])rows\b",
    "publish, TrainingSummary": r"\b(import|training[./]) ?release\b|\bProvenance\b",
    "SavedModel": rf"{identifier('Saved', 'Kept', 'Told')}|(->|:) Saved\b",
    "LossMeter, non_finite": r"\bMeter\b|\bspoilt\b",
    "TrainStep, uncaptured, networks_to_save": rf"\bStepper\b|\.plainly\b|{identifier('plainly', 'products')}",
    "optim.step, learning_rates": rf"\boptimizing\.\w|{identifier('optimizing', 'rates')}",
    "cuda_graph, run_on_stream": rf"\btraining[./]capture\b|{identifier('capture', 'aside')}",
    "spans": r"\b[Ll]attices?\b",
    "downsample, BlurPool, round_up_to_multiple": r"\b(nn[./]|import )(halving|Blur)\b|\bfitting_size\b",
    "file_checks, check_header": r"\b([Ss]creening|[Gg]lances?)\b",
}
"""The names that are used now, and a pattern of those that were used before."""

BETWEEN = r"""[\s#"'f]+"""  # words of a sentence, perhaps on two lines of a comment or of two string literals
TURNS = {
    turn: re.compile(rf"\b{turn.replace(' ', BETWEEN)}\b(?! (not )?None)", re.IGNORECASE)
    for turn in ("that of", "those of", "what is", "whatever", "somebody", "likewise", "is told")
}
ALLOWED: dict[tuple[str, str], str] = {
    (name, "import Blur"): "a derivation of photos, not the layer"
    for name in ("CONTRIBUTING.md", "imtrans/data/__init__.py")
}
"""Files and matches that are allowed, each with its reason."""


def found(pattern, texts=TEXTS):
    """Where a pattern matches: ``file:line: the line``."""
    return [
        f"{name}:{number}: {text.splitlines()[number - 1].strip()}"
        for name, text in texts.items()
        for match in re.finditer(pattern, text)
        if (name, match[0]) not in ALLOWED
        for number in [text.count("\n", 0, match.start()) + 1]
    ]


def test_there_are_texts():
    assert {"README.md", "docs/index.md", "imtrans/__init__.py", "examples/pix2pix_facades.py"} <= set(TEXTS)


@pytest.mark.parametrize("new", OLD_NAMES)
def test_an_old_name_is_gone(new):
    assert found(OLD_NAMES[new]) == []


def test_the_architecture_has_packages_and_layers():
    contributing = {name: TEXTS[name] for name in ("CONTRIBUTING.md", "pyproject.toml")}
    assert found(r"\b([Rr]ooms?|[Ff]loors?|[Hh]ouse)\b", contributing) == []


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_avoided(turn):
    assert found(TURNS[turn]) == []


def test_a_permission_is_needed():
    patterns = [*OLD_NAMES.values(), *TURNS.values()]
    matches = {(name, m[0]) for name, text in TEXTS.items() for p in patterns for m in re.finditer(p, text)}
    assert set(ALLOWED) <= matches


def test_the_patterns_find_what_they_should():
    code = 'x = 1\n# not\n# that\n#   of others\ny = Share(2)\nf("what "\n  f"is it")\nif what is not None'
    texts = {"a.py": code, "b.md": "Share it. rows"}
    assert found(TURNS["that of"], texts) == ["a.py:3: # that"]
    assert found(TURNS["what is"], texts) == ['a.py:6: f("what "']
    assert found(OLD_NAMES["BatchShard, all_reduce_gradients"], texts) == ["a.py:5: y = Share(2)"]
    assert found(OLD_NAMES["image_grid"], texts) == []
