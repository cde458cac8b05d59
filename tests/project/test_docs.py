"""Every block of Python in the README and the docs runs, file by file, each file in one namespace."""

import re
import shutil
from pathlib import Path

import error_table
import huggan_repo
import pytest
import torch
from authors_server import home_fixture, site_fixture  # noqa: F401
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image

from imtrans import UNetGenerator

ROOT = Path(__file__).parents[2]
WEIGHTS = Path("examples", "weights", "facades")
PAGES = sorted(p for p in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")] if p.exists())
BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>.+) -->\n)?^``` ?(?P<kind>\w+)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S)
NOT_RUN: dict[str, int] = {}
"""Of each page, how many blocks are marked by ``<!-- not run: reason -->`` on the line above."""


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(text, *kinds):
    return [found for found in BLOCK.finditer(text) if found["kind"] in kinds]


def code_of(text):
    """The Python blocks of a page as one program whose lines keep their numbers."""
    lines = [""] * (text.count("\n") + 1)
    for block in blocks(text, "python", "py"):
        if block["why"] is None:
            first = text[: block.start("code")].count("\n")
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md"} <= set(map(name_of, PAGES))


@pytest.mark.parametrize("page", [p for p in PAGES if code_of(p.read_text()).strip()], ids=name_of)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, hub, site):
    """With a Hub that has the repos that the pages name, the authors' server, and a picture in the working folder.

    The folder also has the weights of the repository, as at the root of a clone.
    """
    shutil.copytree(ROOT / WEIGHTS, tmp_path / "work" / WEIGHTS)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    UNetGenerator(base_channels=4, depth=3).save_pretrained(tmp_path / "repo")
    hub.add_repo("user/labels2photo", {path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()})
    hub.add_repo(huggan_repo.REPO, huggan_repo.files())
    Image.new("RGB", (70, 50), (0, 85, 255)).save("labels.png")
    torch.manual_seed(0)
    exec(compile(code_of(page.read_text()), str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_is_not_run_is_known_and_a_fence_names_its_language(page):
    text = page.read_text()
    assert sum(b["why"] is not None for b in blocks(text, "python", "py")) == NOT_RUN.get(name_of(page), 0)
    fences = [line for line in text.splitlines() if line.lstrip().startswith("```")]
    assert len(fences) == 2 * len(BLOCK.findall(text)), "a fence that is indented, unclosed, or names no language"


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_the_readme_has_one_command_under(heading):
    text = (ROOT / "README.md").read_text()
    section = re.search(rf"^## {heading}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert section, f"README.md has no heading '## {heading}'"
    (block,) = blocks(section[1], "bash", "console", "sh", "shell")
    (command,) = block["code"].strip().splitlines()
    named = [word for word in command.split() if word.endswith((".py", ".txt"))]
    assert [word for word in named if not (ROOT / word).is_file()] == []


def test_the_runner_runs_what_is_marked_python_and_keeps_line_numbers():
    page = (
        "a\n```python\nx = 1\n```\n<!-- not run: slow -->\n```python\nx = 2\n```\n```bash\nls\n```\n```python\ny\n```\n"
    )
    assert code_of(page).splitlines() == ["", "", "x = 1", "", "", "", "", "", "", "", "", "", "y", ""]


def test_the_table_of_errors_is_that_of_the_code_and_each_has_a_way_out():
    """``python tests/helpers/error_table.py`` renews it."""
    page = error_table.PAGE.read_text()
    assert error_table.renewed(page) == page
    assert all(halves[1] for halves in (error_table.halves(kind, text) for _, kind, text in error_table.errors()))
