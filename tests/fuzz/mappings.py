"""Mapping files of the replay."""

from __future__ import annotations

import contextlib
from random import Random

from onerec.errors import OneRecError
from tests.hostile import files

SEEDS = [files.mappings(Random(number)) for number in range(40)]


def target(data: bytes) -> None:
    """Refused with a sentence, or read."""
    with contextlib.suppress(OneRecError):
        files.read_mapping_of(data)
