"""A griffe extension for the reference pages: it fences the doctests in docstrings, so that they render as code."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n.*\S.*)*", re.M)


class DoctestBlocks(griffe.Extension):
    """Put each doctest of a docstring into a fenced code block."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of `obj` before it is parsed."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
