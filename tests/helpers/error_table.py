"""The table of errors in ``docs/reliability.md``; ``python tests/helpers/error_table.py`` renews it from the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import imtrans.errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
START, END = "<!-- errors: begin -->", "<!-- errors: end -->"
# For texts that name only the problem, or that end in the text of another error.
WAYS_OUT = {
    "ArgumentError": "Pass an allowed value.",
    "ShapeError": "Pass an allowed value.",
    "DataError": "Repair the named file, or remove it.",
    "SavedModelError": "Download the model again, or save it again.",
    "HubError": "The text ends with the way out.",
    "CheckpointError": "None is needed: the previous checkpoint is used.",
    "TrainingError": "The text ends with the way out.",
}
KINDS = {name for name, kind in vars(imtrans.errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def text_of(node: ast.expr) -> str:
    """The text that an expression makes, with the names of what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"‹{name_of(node.value)}›"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return f"‹{name_of(node)}›"


def name_of(node: ast.expr) -> str:
    """A word for a value: the last name in it that is no function's."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        return node.id if isinstance(node, ast.Name) else node.attr
    if isinstance(node, ast.Call) and node.args:
        return name_of(node.args[0])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return name_of(node.func.value)
    if isinstance(node, (ast.Subscript, ast.Starred)):
        return name_of(node.value)
    if isinstance(node, ast.BoolOp):
        return name_of(node.values[0])
    if isinstance(node, ast.IfExp):
        return name_of(node.body)
    return "..."


def errors() -> Iterator[tuple[str, str, str]]:
    """Module, class and text of each error, in the order of the code."""
    for path in sorted((ROOT / "imtrans").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
                yield path.stem, node.func.id, " ".join(text_of(node.args[0]).split())


def halves(kind: str, text: str) -> tuple[str, str]:
    """What happened, and the way out."""
    sentences = re.split(r"(?<=[.›]) (?=[A-Z])", text)
    return sentences[0], " ".join(sentences[1:]) or WAYS_OUT[kind]


def table() -> str:
    """A row for each error."""
    rows = ["| Error | Raised in | What happened | The way out |", "| --- | --- | --- | --- |"]
    for module, kind, text in dict.fromkeys(errors()):
        what, way_out = halves(kind, text.replace("|", "\\|"))
        rows.append(f"| {kind} | {module} | {what} | {way_out} |")
    return "\n".join(rows)


def renewed(page: str) -> str:
    """The page with the table as the code has it."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
