"""The history store on a real broker: restored, following, continued, wiped."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from inference.histories import HistoryStore
from onerec.errors import SettingsError
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from onerec.state.store import LocalStore
from schemas.packed import pack_longs
from schemas.records import History
from schemas.topics import HISTORIES, id_key
from tests.inference.loop import eventually

pytestmark = pytest.mark.broker


class Joiner:
    """Writes histories, to the partition that it is told."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._writer = RecordWriter(kafka, linger_ms=0)

    def write(self, user_id: int, items: list[int], *, partition: int | None = None) -> None:
        history = History(
            user_id=user_id,
            history_items=pack_longs(items),
            history_times_ms=pack_longs([7 * item for item in items]),
            history_labels=bytes(item % 64 for item in items),
            updated_ms=1_650_000_000_000,
        )
        self._writer.send(HISTORIES, id_key(user_id), history, partition=partition)
        self._writer.flush(60)


def items_of(store: HistoryStore, user_id: int) -> list[int]:
    history = store.get([user_id])[0]
    assert history.times_ms.tolist() == [7 * item for item in history.items.tolist()]
    assert history.labels.tolist() == [item % 64 for item in history.items.tolist()]
    return [int(item) for item in history.items]


def test_it_restores_follows_and_takes_on_partitions(kafka: KafkaSettings, tmp_path: Path) -> None:
    joiner = Joiner(kafka)
    for user in range(10):
        joiner.write(user, [user, 100 + user], partition=user % 2)
    with HistoryStore(kafka, tmp_path / "histories", service="test") as store:
        assert store.restored() == frozenset()
        store.assign({0})
        store.wait_restored(60)
        assert items_of(store, 4) == [4, 104]
        assert items_of(store, 5) == [], "its partition is another worker's"
        joiner.write(4, [4, 104, 204], partition=0)
        eventually(lambda: items_of(store, 4) == [4, 104, 204])
        may_read, apply = threading.Event(), store._on_record

        def held(received: Received) -> None:
            assert may_read.wait(60)
            apply(received)

        store._on_record = held  # type: ignore[method-assign]
        store.assign({0, 1})
        assert 1 not in store.restored(), "its histories have not been read"
        may_read.set()
        store.wait_restored(60)
        assert items_of(store, 5) == [5, 105]
        assert items_of(store, 12345) == []
        assert [len(history.items) for history in store.get([4, 12345, 5])] == [3, 0, 2]
        with pytest.raises(SettingsError, match="in use by another process"):
            HistoryStore(kafka, tmp_path / "histories", service="other")


def test_a_restart_reads_only_what_is_new(kafka: KafkaSettings, tmp_path: Path) -> None:
    joiner = Joiner(kafka)
    joiner.write(1, [1], partition=0)
    joiner.write(2, [2], partition=0)
    with HistoryStore(kafka, tmp_path / "histories", service="test") as store:
        store.assign({0, 1})
        store.wait_restored(60)
    joiner.write(2, [2, 22], partition=0)
    again = HistoryStore(kafka, tmp_path / "histories", service="test")
    assert items_of(again, 1) == [1], "there before anything is read"
    assert items_of(again, 2) == [2]
    read: list[int] = []
    apply = again._on_record

    def noting(received: Received) -> None:
        read.append(received.offset)
        apply(received)

    again._on_record = noting  # type: ignore[method-assign]
    with again:
        again.assign({0})
        again.wait_restored(60)
        assert items_of(again, 2) == [2, 22]
    assert read == [2]


def test_state_of_another_cluster_is_wiped(kafka: KafkaSettings, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "histories", "another cluster")
    other.write([(id_key(1), bytes(17))], {"0": 1000})
    other.close()
    Joiner(kafka).write(2, [5], partition=0)
    with HistoryStore(kafka, tmp_path / "histories", service="test") as store:
        assert items_of(store, 1) == []
        store.assign({0})
        store.wait_restored(60)
        assert items_of(store, 2) == [5], "read from the beginning, not from the other cluster's position"
