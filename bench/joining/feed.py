"""One stream of impressions and actions for all joiners, in our schemas and in those of the peers in Java."""

from __future__ import annotations

import heapq
import io
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import fastavro
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from onerec.errors import CheckFailedError
from onerec.kafka import admin, clients
from onerec.settings import KafkaSettings
from schemas.codec import Codec
from schemas.records import Action, ActionKind, Impression
from schemas.topics import ACTIONS, IMPRESSIONS, id_key

USERS, ITEMS = 15_600, 7_500
PER_S = 100.0
"""Requests in a second of event time, where a caller says nothing else."""
LATEST_ACTION_MS = 60_000
BEGIN_MS = 1_700_000_000_000
JAVA_HEADER = b"\xc3\x01" + bytes(8)
JAVA_TOPICS = ("impressions", "actions", "sessions", "histories")
FLUSH_S = 120.0


class Event(NamedTuple):
    """An impression, or an action where `kind` is given."""

    request: int
    user: int
    item: int
    position: int
    time_ms: int
    kind: ActionKind | None = None
    watch_ms: int = 0
    duration_ms: int = 0


def events(count: int, per_s: float = PER_S) -> Iterator[Event]:
    """In event-time order: one to four impressions a request, and for each an action within a minute."""
    rng, time_ms, request = random.Random(1), float(BEGIN_MS), 0
    actions: list[tuple[float, int, Event]] = []
    made = 0
    while made < count:
        time_ms += 1000 * rng.expovariate(per_s)
        while actions and actions[0][0] <= time_ms and made < count:
            yield heapq.heappop(actions)[2]
            made += 1
        request, user = request + 1, int(USERS * rng.random() ** 2)
        for position in range(rng.randint(1, 4)):
            if made == count:
                return
            shown = Event(request, user, int(ITEMS * rng.random() ** 3), position, int(time_ms))
            yield shown
            made += 1
            at_ms, chance = time_ms + LATEST_ACTION_MS * rng.random(), rng.random()
            kind = ActionKind.LIKE if chance < 0.05 else ActionKind.FOLLOW if chance < 0.06 else ActionKind.VIEW
            duration_ms = rng.randint(5_000, 60_000)
            action = shown._replace(
                time_ms=int(at_ms), kind=kind, watch_ms=rng.randint(0, duration_ms), duration_ms=duration_ms
            )
            heapq.heappush(actions, (at_ms, made, action))


def feed_ours(settings: Sequence[KafkaSettings], count: int, per_s: float = PER_S) -> None:
    """Make all topics of each of these systems, and send the stream to each."""
    codecs = {topic: Codec(topic) for topic in (IMPRESSIONS, ACTIONS)}
    for kafka in settings:
        admin.create_topics(kafka)
    producer = clients.producer(settings[0])
    for event in events(count, per_s):
        topic = IMPRESSIONS if event.kind is None else ACTIONS
        value = codecs[topic].encode(record_of(event))
        for kafka in settings:
            _send(producer, clients.topic_name(kafka, topic), id_key(event.user), value, event.time_ms)
    _flush(producer)


def feed_java(kafka: KafkaSettings, count: int, per_s: float = PER_S) -> None:
    """Topics and records as the peers in Java read them: their schemas, a header of ten bytes, a key of eight."""
    make_topics(kafka, JAVA_TOPICS)
    schemas = {kind: fastavro.parse_schema(schema) for kind, schema in JAVA_SCHEMAS.items()}
    producer = clients.producer(kafka)
    for event in events(count, per_s):
        kind = "impressions" if event.kind is None else "actions"
        body = io.BytesIO()
        body.write(JAVA_HEADER)
        fastavro.schemaless_writer(body, schemas[kind], _java_record(event))
        _send(producer, kind, struct.pack(">q", event.user), body.getvalue(), event.time_ms)
    _flush(producer)


def make_topics(kafka: KafkaSettings, names: Sequence[str]) -> None:
    """Topics that keep everything, whatever event time their records have."""
    client = AdminClient(clients.properties(kafka))
    made = client.create_topics([NewTopic(name, kafka.partitions, 1, config={"retention.ms": "-1"}) for name in names])
    for future in made.values():
        future.result(30.0)


def _send(producer: Any, topic: str, key: bytes, value: bytes, time_ms: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, timestamp=time_ms)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _flush(producer: Any) -> None:
    if left := producer.flush(FLUSH_S):
        raise CheckFailedError(f"{left} records were not written within {FLUSH_S:.0f} s.", "See the broker's log.")


def record_of(event: Event) -> Impression | Action:
    """The event in our schema."""
    named = {"request_id": event.request, "user_id": event.user, "item_id": event.item, "time_ms": event.time_ms}
    if event.kind is None:
        return Impression(**named, position=event.position, model_version=3, produced_ms=event.time_ms)
    viewed = event.kind is ActionKind.VIEW
    return Action(
        **named,
        kind=event.kind,
        watch_ms=event.watch_ms if viewed else None,
        duration_ms=event.duration_ms if viewed else None,
        produced_ms=event.time_ms,
    )


def _java_record(event: Event) -> Mapping[str, Any]:
    named: dict[str, Any] = {"request_id": event.request, "user_id": event.user, "item_id": event.item}
    named |= {"event_time_ms": event.time_ms, "surface": "feed"}
    if event.kind is None:
        return named | {"position": event.position, "model_version": 3, "exploration": False}
    liked, followed = event.kind is ActionKind.LIKE, event.kind is ActionKind.FOLLOW
    return named | {
        "kind": 1,
        "watch_ms": event.watch_ms,
        "duration_ms": event.duration_ms,
        "like": liked,
        "follow": followed,
    }


def _java_schema(name: str, fields: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


_IDS = dict.fromkeys(("request_id", "user_id", "item_id"), "long")
JAVA_SCHEMAS = {
    "impressions": _java_schema(
        "Impression",
        _IDS
        | {"position": "int", "event_time_ms": "long", "model_version": "long", "surface": "string"}
        | {"exploration": "boolean"},
    ),
    "actions": _java_schema(
        "Action",
        _IDS
        | {"event_time_ms": "long", "kind": "int", "watch_ms": "long", "duration_ms": "long"}
        | {"like": "boolean", "follow": "boolean", "surface": "string"},
    ),
}
