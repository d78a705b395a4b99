"""Putting dead letters back into the topics that they came from, each once.

A record that is put back and the mark of it in dead-letters are one transaction, so a replay that was interrupted
leaves no record without its mark. The transactional id is one for all: a second replay that runs at the same time
fences the first, and it reads the marks after that, so no letter is put back by both.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import KafkaException

from onerec.kafka import clients
from onerec.kafka.admin import beginning_offsets
from onerec.kafka.delivery import Deliveries
from onerec.kafka.letters import PARTITION, REPLAYED_HEADER, Letter, Mark, Selection, entries, letter_bounds
from onerec.kafka.registry import codec
from onerec.kafka.trouble import explained
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.topics import BY_NAME, DEAD_LETTERS, INPUTS

TRANSACTION_LETTERS = 500
TRANSACTION_BYTES = 8_388_608
TIMEOUT_S = 30.0


@dataclass(slots=True)
class Plan:
    """What a replay would do: the offsets of the letters to put back, and why the other selected ones stay."""

    offsets: list[int] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Letters to put back by topic and reason."""
    stay: dict[str, list[int]] = field(default_factory=dict)
    """Offsets of selected letters that are not put back, by the reason in words."""
    first: int = 0
    """Where dead-letters began,"""
    end: int = 0
    """and ended when it was read."""
    replayed: set[int] = field(default_factory=set)
    """Offsets of all letters that had been put back by then."""

    def add(self, letter: Letter, *, again: bool) -> None:
        """Take a selected letter in."""
        why = obstacle(letter)
        if why is None and letter.offset in self.replayed and not again:
            why = "replayed already (--again repeats it)"
        if why is None:
            self.offsets.append(letter.offset)
            self.counts[letter.record.topic, letter.record.reason] += 1
        else:
            self.stay.setdefault(why, []).append(letter.offset)


def obstacle(letter: Letter) -> str | None:
    """Why a letter must never be put back; None where it may."""
    record = letter.record
    if BY_NAME.get(record.topic) not in INPUTS:
        return f"{record.topic[:100]} is no input topic: only {', '.join(topic.name for topic in INPUTS)} are"
    if record.truncated:
        return "the letter holds only the beginning of its record"
    return None


def plan(kafka: KafkaSettings, selection: Selection, *, again: bool = False) -> Plan:
    """Read dead-letters and say what a replay of the selected letters would do. Raises DependencyMissingError."""
    first, end = letter_bounds(kafka)
    planned = Plan(first=first, end=end)
    planned.replayed = {entry.letter_offset for entry in entries(kafka, first, end) if isinstance(entry, Mark)}
    for letter in _letters(kafka, first, end):
        if selection.has(letter):
            planned.add(letter, again=again)
    return planned


def replay(kafka: KafkaSettings, planned: Plan, *, again: bool = False) -> int:
    """Put the letters of the plan back, but those that somebody has put back since; how many it were.

    Records keep key, bytes, partition and timestamp. Raises DependencyMissingError where the broker fails or another
    replay takes over: what is marked until then stays put back, the rest can be replayed again.
    """
    topics = {BY_NAME[topic] for topic, _ in planned.counts}
    partitions = {topic.name: set(beginning_offsets(kafka, topic)) for topic in topics}
    producer = clients.producer(kafka, transactional_id=f"{kafka.topic_prefix}{kafka.group_prefix}dead-letters")
    try:
        producer.init_transactions(TIMEOUT_S)
        wanted = set(planned.offsets)
        if not again:
            wanted -= _marked_since(kafka, planned)
        done = 0
        for batch in _batches(kafka, wanted):
            producer.begin_transaction()
            deliveries = Deliveries()
            for letter in batch:
                _put_back(producer, kafka, letter, partitions[letter.record.topic], deliveries)
            producer.flush(TIMEOUT_S)
            deliveries.check()
            producer.commit_transaction(TIMEOUT_S)
            done += len(batch)
    except KafkaException as error:
        with suppress(KafkaException):
            producer.abort_transaction(TIMEOUT_S)
        raise explained(error, kafka, "putting dead letters back") from error
    return done


def _letters(kafka: KafkaSettings, first: int, end: int) -> Iterator[Letter]:
    return (entry for entry in entries(kafka, first, end) if isinstance(entry, Letter))


def _marked_since(kafka: KafkaSettings, planned: Plan) -> set[int]:
    _, end = letter_bounds(kafka)
    since = entries(kafka, planned.end, end) if end > planned.end else iter(())
    return {entry.letter_offset for entry in since if isinstance(entry, Mark)}


def _batches(kafka: KafkaSettings, wanted: Collection[int]) -> Iterator[list[Letter]]:
    """The wanted letters in the order of their offsets, as many as one transaction takes."""
    if not wanted:
        return
    batch: list[Letter] = []
    size = 0
    for letter in _letters(kafka, min(wanted), max(wanted) + 1):
        if letter.offset in wanted and obstacle(letter) is None:
            batch.append(letter)
            size += len(letter.record.value or b"")
        if len(batch) >= TRANSACTION_LETTERS or size >= TRANSACTION_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _put_back(
    producer: clients.WatchedProducer, kafka: KafkaSettings, letter: Letter, there: set[int], deliveries: Deliveries
) -> None:
    """`there`: the partitions that its topic has now."""
    record = letter.record
    topic = BY_NAME[record.topic]
    headers: list[tuple[str, str | bytes | None]] = [(REPLAYED_HEADER, b"%d" % letter.offset)]
    producer.produce(
        clients.topic_name(kafka, topic),
        record.value,
        record.key,
        record.partition if record.partition in there else -1,  # else by its key
        timestamp=max(0, record.timestamp_ms),  # 0: now, for a record that came without one
        headers=headers,
        on_delivery=deliveries,
    )
    mark = dataclasses.replace(
        record, reason=str(Reason.REPLAYED), detail=record.reason, key=None, value=None, truncated=False
    )
    encoded = codec(kafka, DEAD_LETTERS).encode(mark)
    dead_letters = clients.topic_name(kafka, DEAD_LETTERS)
    producer.produce(dead_letters, encoded, None, PARTITION, headers=headers, on_delivery=deliveries)
    producer.poll(0)
