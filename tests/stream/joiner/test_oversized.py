"""Records far larger than events are: what the joiner writes about them still fits the broker's limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onerec.kafka import clients
from schemas.reasons import Reason
from schemas.records import DeadLetter
from tests.recovery.bus import Entry
from tests.stream.joiner.events import Event, action, impression
from tests.stream.joiner.system import LAST_MS, System

HEADER_BYTES = 10
TIME_MS = 100
WAITING = [action(item, TIME_MS) for item in range(30)]
"""Of items that nobody was shown: they wait for their impressions."""


def padded(value: bytes, size: int) -> bytes:
    """The same record, its first number written with needless bytes: decoders take it."""
    first, rest = value[HEADER_BYTES], value[HEADER_BYTES + 1 :]
    assert first < 0x80, "a number of one byte"
    return value[:HEADER_BYTES] + bytes([first | 0x80]) + b"\x80" * size + b"\x00" + rest


def publish(system: System, event: Event, *, key: bytes = b"1", padding: int = 0) -> None:
    value = padded(system.wiring.action_codec.encode(event), padding) if padding else None
    system.bus.log((system.wiring.inputs[1], 0)).append(
        Entry(key, value or system.wiring.action_codec.encode(event), TIME_MS)
    )


def largest(system: System, topic: str) -> int:
    log = system.bus.log((topic, 0))
    return max((len(entry.key or b"") + len(entry.value or b"") for entry in log), default=0)


def letters(system: System) -> list[DeadLetter]:
    codec = system.wiring.dead_letter_codec
    return [codec.decode(entry.value) for entry in system.bus.committed(system.wiring.dead_letters)]


@pytest.mark.parametrize(("key", "padding"), [(b"k" * 300_000, 0), (b"1", 300_000)], ids=["key", "value"])
def test_waiting_actions_with_padding_do_not_outgrow_the_changelog(
    system: Callable[..., System], key: bytes, padding: int
) -> None:
    joiner = system(events=[])
    for event in WAITING:
        publish(joiner, event, key=key, padding=padding)
    joiner.live()
    kafka = joiner.settings.kafka
    assert largest(joiner, joiner.wiring.changelog) < kafka.max_message_bytes
    refused = letters(joiner)
    assert len(refused) == len(WAITING) - 1, "one of such a size fits"
    assert {letter.reason for letter in refused} == {Reason.OUT_OF_BOUNDS}


def test_actions_of_usual_size_wait(system: Callable[..., System]) -> None:
    joiner = system(events=[*WAITING, impression(5, TIME_MS), impression(5, LAST_MS), action(5, LAST_MS)])
    joiner.live()
    assert {letter.reason for letter in letters(joiner)} <= {Reason.ORPHAN}


def test_letters_about_the_largest_records_fit(system: Callable[..., System]) -> None:
    joiner = system(events=[])
    most = joiner.settings.kafka.max_message_bytes
    log = joiner.bus.log((joiner.wiring.inputs[1], 0))
    log += [
        Entry(b"k" * (most - 100), b"\xff", TIME_MS),
        Entry(b"7", b"\xff" * (10 * most), TIME_MS),  # out of a compressed batch
        Entry(b"k" * most, b"\xff" * most, TIME_MS),
        Entry(None, None, TIME_MS),
    ]
    joiner.live()
    assert largest(joiner, joiner.wiring.dead_letters) < clients.max_producer_bytes(joiner.settings.kafka)
    long_key, long_value, both, nothing = letters(joiner)
    assert [letter.truncated for letter in (long_key, long_value, both, nothing)] == [True, True, True, False]
    assert (long_value.key, long_value.value) == (b"7", b"\xff" * most)
    assert (nothing.key, nothing.value) == (None, None)
