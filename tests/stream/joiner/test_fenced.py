"""A joiner whose instance has been taken over learns it from whichever call of its producer hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onerec.kafka import clients
from onerec.settings import KafkaSettings
from onerec.state.store import LocalStore
from stream.joiner.transaction import TransactionError, Transactions
from stream.joiner.wiring import wire
from stream.joiner.work import Record, Work
from tests.kafka.reading import until_it_raises

RECORDS: list[Record] = [(b"7", b"a history", 1)] * 3


@pytest.mark.exactly_once
@pytest.mark.broker
@pytest.mark.parametrize("call", [Transactions.finish, Transactions.is_delivered, Transactions.poll])
def test_it_is_told_so(kafka: KafkaSettings, tmp_path: Path, call: Callable[[Transactions], object]) -> None:
    wiring, consumer = wire(kafka), clients.consumer(kafka, group="joiner")
    works = [Work(0, (1, 1), LocalStore(tmp_path, "test"), histories=RECORDS, changelog=RECORDS)]
    zombie = Transactions(wiring, "0")
    Transactions(wiring, "0")
    zombie.begin(works, consumer)
    with pytest.raises(TransactionError) as raised:
        until_it_raises(lambda: call(zombie))
    consumer.close()
    assert raised.value.fenced
