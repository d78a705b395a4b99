"""Consumers on a real broker: how they leave."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from onerec.kafka import clients
from onerec.settings import KafkaSettings
from schemas.topics import REQUESTS

pytestmark = pytest.mark.broker
PATIENCE_S = 60.0


def joined(kafka: KafkaSettings, on_revoke: Any) -> clients.WatchedConsumer:
    """A consumer that has partitions of topic requests."""
    consumer = clients.consumer(kafka, group="leaving")
    consumer.subscribe([clients.topic_name(kafka, REQUESTS)], on_revoke=on_revoke)
    deadline_s = time.monotonic() + PATIENCE_S
    while not consumer.assignment():
        assert time.monotonic() < deadline_s
        consumer.poll(0.1)
    return consumer


def test_a_consumer_that_cannot_leave_is_left_behind(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clients, "CLOSE_PATIENCE_S", 0.5)
    free, held = threading.Event(), threading.Event()

    def on_revoke(*_: Any) -> None:
        held.set()
        free.wait(PATIENCE_S)

    consumer = joined(kafka, on_revoke)
    consumer.close()
    assert held.wait(PATIENCE_S)
    assert not free.is_set()
    assert "leaving did not close in" in caplog.text
    free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("closing"):
            thread.join(PATIENCE_S)


def test_what_a_rebalance_callback_raises_is_raised_by_close(kafka: KafkaSettings) -> None:
    def on_revoke(*_: Any) -> None:
        raise ValueError("could not hand over")

    consumer = joined(kafka, on_revoke)
    with pytest.raises(ValueError, match="could not hand over"):
        consumer.close()
