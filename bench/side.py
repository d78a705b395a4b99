"""One side of a comparison in a process of its own: `python -m bench.side MODULE:CLASS JSON`.

The class takes the JSON object as keyword arguments. `prepare()` makes everything that is not to be timed and returns
facts; each `repeat()` does the work once and returns what it measured, `seconds` at least. The process answers a line
"repeat" on stdin by a line of JSON, and works at nothing between: so two sides can take turns on one machine.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any, Protocol


class Side(Protocol):
    """What can take turns."""

    def prepare(self) -> dict[str, Any]:
        """Get ready, warm up included; facts that stand under the figure's conditions."""

    def repeat(self) -> dict[str, Any]:
        """Do the work once: `seconds` and whatever else is measured."""


def load(target: str, parameters: dict[str, Any]) -> Side:
    """The side that MODULE:CLASS names."""
    module, _, name = target.partition(":")
    side: Side = getattr(importlib.import_module(module), name)(**parameters)
    return side


def serve(target: str, parameters: dict[str, Any]) -> None:
    """Prepare, then repeat as often as asked; ends with stdin. What libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        side = load(target, parameters)
        _tell(answers, side.prepare())
        for line in sys.stdin:
            if line.strip() == "repeat":
                _tell(answers, side.repeat())


def _tell(answers: Any, values: dict[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
