"""What several commands of `python -m evaluation` are told in the same words."""

from __future__ import annotations

from enum import StrEnum

import typer

from onerec.heap import keep_freed_memory
from onerec.service import configure_logging


class Device(StrEnum):
    """Where models train."""

    CPU = "cpu"
    CUDA = "cuda"


def seeds_of(text: str) -> list[int]:
    """The seeds of `1,2,3`. Raises typer.BadParameter, which ends the command with a sentence and exit code 2."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"Seeds are whole numbers with commas between, as 1,2,3; not {text!r}.") from error


def names_of(text: str) -> list[str]:
    """The names of `one,two`; none of an empty text, which commands take for all."""
    return [name.strip() for name in text.split(",")] if text else []


def begin() -> None:
    """Of a command that trains models: its log, and memory that is used again."""
    configure_logging("evaluation")
    keep_freed_memory()
