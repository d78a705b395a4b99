"""What stands in dead-letters, as `onerec dead-letters` reads and shows it."""

from __future__ import annotations

import dataclasses
import io
import json

from rich.console import Console

from onerec.cli.letter_view import fields_of, letter_table
from onerec.kafka.letter_replay import obstacle
from onerec.kafka.letters import REPLAYED_HEADER, Letter, Mark, entry_of
from onerec.settings import KafkaSettings
from onerec.state.tail import Raw
from schemas.reasons import Reason
from schemas.records import DeadLetter
from tests.hostile.records import CODECS, VALID
from tests.schemas.examples import BY_TYPE

KAFKA = KafkaSettings()
LETTER: DeadLetter = BY_TYPE[DeadLetter]
ENCODE = CODECS["dead-letters"].encode
SEEDS = [
    b"1\n" + ENCODE(dataclasses.replace(LETTER, topic=name, value=value, reason=str(reason)))
    for (name, value), reason in zip(VALID.items(), Reason, strict=False)
]
SEEDS += [b"77\n" + ENCODE(dataclasses.replace(LETTER, reason="replayed", timestamp_ms=2**62, detail="\x1b[2J[bold]"))]


def target(data: bytes) -> None:
    """A line that is the header of a replay, then the letter."""
    header, _, value = data.partition(b"\n")
    entry = entry_of(KAFKA, Raw(("dead-letters", 0), 5, None, value, {REPLAYED_HEADER: header}))
    if isinstance(entry, Mark):
        entry = entry.letter()
    if isinstance(entry, Letter):
        obstacle(entry)
        fields = fields_of(KAFKA, entry)
        json.dumps(fields)
        out = io.StringIO()
        Console(file=out, force_terminal=False, width=10_000).print(letter_table(fields), highlight=False, markup=False)
        assert "\x1b" not in out.getvalue(), "a letter must not write to the terminal"
