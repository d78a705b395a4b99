"""librdkafka's `send_offsets_to_transaction` may wait for ever; a joiner that hangs there must not hang for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from onerec.kafka import watchdog
from stream.joiner import transaction
from tests.recovery.bus_clients import TransactionalProducer
from tests.stream.joiner.system import System


def test_a_joiner_stuck_in_its_commit_ends(system: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[int] = []
    answer = TransactionalProducer.send_offsets_to_transaction

    def silent(self: TransactionalProducer, *arguments: Any) -> None:
        assert ended.wait(60), "nobody has ended the process"
        answer(self, *arguments)

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(TransactionalProducer, "send_offsets_to_transaction", silent)
    monkeypatch.setattr("onerec.kafka.watchdog.os._exit", end)
    monkeypatch.setattr(transaction, "STUCK_AFTER_S", 0.1)
    system().live()
    assert codes[0] == watchdog.EXIT_CODE
