"""Requests on a bus in memory, and workers that live and die on it."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from inference.worker import intake
from inference.worker.service import run_worker
from onerec.kafka import clients
from onerec.settings import Settings, load_settings
from schemas.packed import pack_longs
from schemas.records import History, ItemTokens, Recommendation, Request
from schemas.topics import HISTORIES, ITEM_TOKENS, RECOMMENDATIONS, REQUESTS, id_key
from tests.inference.publishing import Publisher, random_weights
from tests.recovery import disk
from tests.recovery.bus import Bus
from tests.recovery.bus_clients import connect
from tests.recovery.picture import Picture
from tests.recovery.topics import ends, not_done, publish, records
from tests.recovery.turns import Turns

LEVELS, CODES = 3, 8
ITEMS, REQUESTED = 20, 9
USERS = (3, 4, 5, 8, 9)
"""Of both partitions; the last one is unknown."""
TOO_MANY, TOO_MANY_AT = 5, 6
"""Items asked for by a request that is refused, and its number."""
DAY_MS = 24 * 3_600_000


def _stream() -> list[tuple[bytes, Any]]:
    """Requests by key, good and bad ones."""
    now_ms = time.time_ns() // 1_000_000
    requests = [_request(n, produced_ms=now_ms, items=TOO_MANY if n == TOO_MANY_AT else 3) for n in range(REQUESTED)]
    stream: list[tuple[bytes, Any]] = [(id_key(request.user_id), request) for request in requests]
    stream.insert(3, (id_key(3), b"no avro"))
    stream.insert(7, (id_key(4), _request(REQUESTED, produced_ms=now_ms, items=0)))
    stream.append((id_key(5), b"no avro either"))
    return stream


def _request(number: int, *, produced_ms: int, items: int) -> Request:
    user = USERS[number % len(USERS)]
    return Request(request_id=number, user_id=user, time_ms=1000 + number, produced_ms=produced_ms, items=items)


STREAM = _stream()


class WorkerSystem:
    """A bus with requests on it, good and bad, and workers that run and die one after another."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        batch: int = 2,
        keeps_in_flight: int = 0,
        at_once: bool = False,
        left: Picture | None = None,
    ) -> None:
        """A fresh one, or what an earlier one's crash has left. `at_once`: local state is on disk as of the crash."""
        self.folder = folder
        self.settings: Settings = load_settings(
            kafka={"partitions": 2},
            store={"uri": str(folder / "store"), "state_dir": str(folder / "state")},
            model={"preset": "tiny"},
            inference={
                "worker": {"max_batch": 3, "max_wait_ms": 0, "deadline_ms": DAY_MS},
                "decoding": {"beam_width": 4, "kernels": "torch"},
            },
        )
        self.kafka = self.settings.kafka
        self.bus = Bus(batch=batch, keeps_in_flight=keeps_in_flight) if left is None else left.bus
        connect(monkeypatch, self.bus)
        if left is None:
            folder.mkdir(parents=True)
            self.bus.make_topics(self.kafka)
            self._story()
        else:
            left.folder.rename(folder)
        self.bus.steps = []
        self.bus.before_step = self.check
        disk.local(monkeypatch, self.bus, at_once=at_once)
        monkeypatch.setattr(intake, "COMMIT_INTERVAL_S", 0.0)
        self._turns = Turns(monkeypatch)

    def live(self) -> None:
        """One process from its start until it can serve and has read all requests, and its end."""
        self.bus.read, self._is_ready = {}, False
        run_worker(self.settings, self)  # type: ignore[arg-type]

    def is_set(self) -> bool:
        """As `Stop`: whether all requests have been read. Clients, and what follows topics, have their turns here."""
        self._turns.take()
        if not self._is_ready:
            return False
        self._ask(2)
        name = clients.topic_name(self.kafka, REQUESTS)
        return all(self.bus.read.get((name, n)) == end for n, end in ends(self.bus, self.kafka, REQUESTS).items())

    def ready(self) -> None:
        """As `Stop`."""
        self._is_ready = True

    def answers(self) -> dict[int, list[Recommendation]]:
        """All answers by request."""
        found: defaultdict[int, list[Recommendation]] = defaultdict(list)
        for answer in records(self.bus, self.kafka, RECOMMENDATIONS):
            found[answer.request_id].append(answer)
        return dict(found)

    def check(self, step: str) -> None:
        """What is committed has been answered or refused: nobody reads it again."""
        answered = self.answers().keys()
        lost = not_done(self.bus, self.kafka, REQUESTS, lambda request: request.request_id in answered)
        assert not lost, f"{step}: these requests are committed, and neither answered nor refused: {lost}"

    def _story(self) -> None:
        kafka, bus = self.kafka, self.bus
        publish(bus, kafka, ITEM_TOKENS, [(id_key(1000 + n), tokens(n)) for n in range(ITEMS)])
        publish(bus, kafka, HISTORIES, [(id_key(user), history(user)) for user in USERS[:-1]])
        Publisher(self.settings).publish(1, random_weights(1, scale=2.0))
        self._ask(5)

    def _ask(self, most: int) -> None:
        """Publish the next requests."""
        asked = sum(ends(self.bus, self.kafka, REQUESTS).values())
        publish(self.bus, self.kafka, REQUESTS, STREAM[asked : asked + most])


def tokens(number: int) -> ItemTokens:
    return ItemTokens(
        item_id=1000 + number,
        codes=tuple(number // CODES**level % CODES for level in reversed(range(LEVELS))),
        codebook_version=1,
        duration_ms=1000,
        tags=(),
        created_ms=0,
    )


def history(user: int) -> History:
    items = range(1000 + user, 1003 + 2 * user)
    return History(
        user_id=user,
        history_items=pack_longs(items),
        history_times_ms=pack_longs([0] * len(items)),
        history_labels=bytes([1] * len(items)),
        updated_ms=1000,
    )
