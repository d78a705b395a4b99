"""Asking a cluster again while one of its brokers goes away, comes back, or hands over what it leads."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.OFFSET_NOT_AVAILABLE,  # a leader just elected (KIP-207)
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._DESTROY_BROKER,  # librdkafka lets go of a bootstrap address once it knows the broker behind it
    }
)
"""A topic just made, or a broker just lost, has no leader for a moment; a broker that starts again refuses at first."""
POLL_S = 0.05
T = TypeVar("T")


def ask(question: Callable[[], T], timeout_s: float, *, also: Set[int] = frozenset()) -> T:
    """The answer, as soon as there is one. Raises KafkaException for what does not pass, or not within `timeout_s`.

    `also` are further codes that pass.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in PASSING | also or time.monotonic() > deadline_s:
                raise
            time.sleep(POLL_S)
