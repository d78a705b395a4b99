"""How `onerec dead-letters` shows letters: as tables for people, as fields for JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.reasons import REMEDIES, Reason
from schemas.topics import BY_NAME

if TYPE_CHECKING:
    from onerec.kafka.letter_replay import Plan
    from onerec.kafka.letters import Group, Letter, Overview
    from onerec.settings import KafkaSettings

FEW = 3
SHOWN_BYTES = 512


def fields_of(kafka: KafkaSettings, letter: Letter) -> dict[str, Any]:
    """A letter for people and for JSON: bytes in hexadecimal digits, and the record where it decodes."""
    record = letter.record
    return {
        "letter": letter.offset,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": _time(record.timestamp_ms),
        "refused": _time(record.time_ms),
        "service": record.service,
        "reason": record.reason,
        "detail": record.detail,
        "remedy": REMEDIES[Reason(record.reason)] if record.reason in list(Reason) else None,
        "truncated": record.truncated,
        "key": _text(record.key),
        "key_hex": None if record.key is None else record.key.hex(),
        "value_hex": None if record.value is None else record.value.hex(),
        "record": _decoded(kafka, record.topic, record.value),
    }


def _decoded(kafka: KafkaSettings, name: str, value: bytes | None) -> Any:
    """The record as plain values; None where the bytes are none."""
    from onerec.kafka.registry import codec  # noqa: PLC0415
    from schemas.codec import DecodeError  # noqa: PLC0415

    topic = BY_NAME.get(name)
    if topic is None or topic.record is None:
        return None
    try:
        return _plain(dataclasses.asdict(codec(kafka, topic).decode(value)))
    except DecodeError:
        return None


def _plain(value: Any) -> Any:
    """What JSON can hold: bytes as hexadecimal digits, NaN and infinity as words."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_overview(found: Overview) -> None:
    """One row a service, topic and reason."""
    table = Table("service", "topic", "reason", "letters", "replayed", "newest", "at", "detail", header_style="bold")
    for group in found.groups:
        table.add_row(*map(escape, _row(group)))
    console = Console()
    console.print(table if found.groups else "no letters", markup=False, highlight=False)
    if len(found.groups) > 1:
        total, replayed = (sum(getattr(group, name) for group in found.groups) for name in ("letters", "replayed"))
        console.print(f"{letters(total)}, {replayed:,} replayed", highlight=False)
    if found.unreadable:
        console.print(f"{found.unreadable} records in dead-letters are no letters", style="yellow", highlight=False)


def _row(group: Group) -> tuple[str, ...]:
    counts = f"{group.letters:,}", f"{group.replayed:,}" if group.replayed else ""
    newest = " ".join(map(str, group.newest))
    return (group.service, group.topic, group.reason, *counts, _time(group.newest_ms), newest, _escaped(group.detail))


def print_letter(fields: dict[str, Any]) -> None:
    """One letter, a field a line."""
    Console().print(letter_table(fields), highlight=False, markup=False)


def letter_table(fields: dict[str, Any]) -> Table:
    """The fields of a letter, a row each."""
    table = Table("field", "value", header_style="bold", box=None)
    for name, value in fields.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
        table.add_row(name, escape(_short(text) if name in {"key_hex", "value_hex"} else _escaped(text)))
    return table


def print_plan(planned: Plan) -> None:
    """What would be put back, and what not and why."""
    for (topic, reason), count in sorted(planned.counts.items()):
        print(f"{topic}, {reason}: {letters(count)} to put back")
    for why, offsets in planned.stay.items():
        few = ", ".join(map(str, offsets[:FEW])) + (", …" if len(offsets) > FEW else "")
        print(f"{letters(len(offsets))} ({few}) stay: {_escaped(why)}")
    if not planned.counts:
        print("nothing to put back")


def letters(count: int) -> str:
    """So many letters, in words."""
    return f"{count:,} letter" + ("" if count == 1 else "s")


def _text(key: bytes | None) -> str | None:
    """A key that is plain text, as those of users and items are."""
    text = (key or b"").decode("ascii", errors="replace")
    return text if text and text.isascii() and text.isprintable() else None


def _short(text: str) -> str:
    """The beginning of hexadecimal digits."""
    most = 2 * SHOWN_BYTES
    return text if len(text) <= most else f"{text[:most]}… ({len(text) // 2:,} bytes; --json has all)"


def _escaped(text: str) -> str:
    """One line without control characters: what a record holds must not write to the terminal."""
    return text.encode("unicode_escape").decode() if not text.isprintable() else text


def _time(time_ms: int) -> str:
    """UTC, to the millisecond; the number where no calendar has it, none for a record without a time."""
    if time_ms < 0:
        return "none"
    try:
        return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
