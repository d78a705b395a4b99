"""Stretches of events for a joiner, each with requests of its own; everything closes by event time alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from onerec.settings import JoinerSettings, KafkaSettings
from schemas.topics import SESSIONS
from tests.stream.joiner.events import Event, action, impression
from tests.stream.joiner.oracle import expected
from tests.stream.joiner.running import Feeder, JoinerProcess, until_records
from tests.stream.joiner.test_service import QUICK, RULES, some_events

BY_EVENT_TIME = QUICK | {"idle_close_s": 3600.0}
"""Settings of the joiner."""
REQUESTS = 1_000
ONLOOKER = 10_000
"""Of the users who let time pass in every partition."""


def wave(number: int, begin_ms: int, *, users: int = 5, visits: int = 3) -> list[Event]:
    """The events of one stretch."""
    return [
        dataclasses.replace(event, request_id=event.request_id + number * REQUESTS)
        for event in some_events(users, visits, begin_ms=begin_ms)
    ]


def close_all(kafka: KafkaSettings, feeder: Feeder, joiner: JoinerProcess, events: Sequence[Event], at_ms: int) -> None:
    """Time passes in every partition until `at_ms`; wait until all sessions of `events` are out."""
    for partition in range(kafka.partitions):
        feeder.publish_to(partition, impression(1, at_ms, user=ONLOOKER + partition))
        feeder.publish_to(partition, action(2, at_ms, user=ONLOOKER + partition))
    feeder.flush()
    wanted = len(expected(events, JoinerSettings(**RULES)).sessions)
    until_records(kafka, SESSIONS, wanted, f"{wanted} sessions\n{joiner.output()}")
