"""Requests on a bus in memory, and samplers that live and die on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference.sampler.identity import is_sampled
from inference.sampler.service import Sampler
from onerec.settings import Settings, load_settings
from schemas.records import PreferencePair, Request
from schemas.topics import HISTORIES, ITEM_TOKENS, PREFERENCES, REQUESTS, id_key
from tests.inference.publishing import Publisher, random_weights
from tests.recovery import disk
from tests.recovery.bus import Bus
from tests.recovery.bus_clients import connect
from tests.recovery.faust_on_bus import BusHost
from tests.recovery.picture import Picture
from tests.recovery.topics import ends, not_done, publish, records
from tests.recovery.turns import Turns
from tests.recovery.worker_on_bus import ITEMS, USERS, history, tokens

SHARE, REQUESTED = 0.6, 12


def _stream() -> list[tuple[bytes, Any]]:
    """Requests by key, good and bad ones."""
    users = [USERS[number % len(USERS)] for number in range(REQUESTED)]
    stream: list[tuple[bytes, Any]] = [
        (id_key(user), Request(request_id=number, user_id=user, time_ms=1000 + number, produced_ms=1))
        for number, user in enumerate(users)
    ]
    stream.insert(4, (id_key(3), b"no avro"))
    stream.insert(7, (id_key(4), b"no avro either"))
    return stream


STREAM = _stream()
SAMPLED = {number for number in range(REQUESTED) if is_sampled(number, SHARE)}


class SamplerSystem:
    """A bus with requests on it, good and bad, and samplers that run and die one after another."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        batch: int = 3,
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
            inference={"sampler": {"share": SHARE, "candidates": 8}, "decoding": {"kernels": "torch"}},
        )
        self.kafka = self.settings.kafka
        self.bus = Bus(batch=batch, keeps_in_flight=keeps_in_flight) if left is None else left.bus
        connect(monkeypatch, self.bus)
        if left is None:
            folder.mkdir(parents=True)
            self.bus.make_topics(self.kafka)
            publish(self.bus, self.kafka, ITEM_TOKENS, [(id_key(1000 + n), tokens(n)) for n in range(ITEMS)])
            publish(self.bus, self.kafka, HISTORIES, [(id_key(user), history(user)) for user in USERS[:-1]])
            Publisher(self.settings).publish(1, random_weights(1, scale=2.0))
            self._ask()
        else:
            left.folder.rename(folder)
        self.bus.steps = []
        self.bus.before_step = self.check
        disk.local(monkeypatch, self.bus, at_once=at_once)
        self._turns = Turns(monkeypatch)

    def live(self) -> None:
        """One process from its start until all requests are done."""
        host = BusHost("sampler", self.settings, self, self.bus)
        host.live(lambda: Sampler(host).start(), self._ask)

    def is_set(self) -> bool:
        """As `Stop`."""
        return False

    def wait(self, _timeout_s: float) -> bool:
        """As `Stop`: what follows the topics has its turn."""
        self._turns.take()
        return False

    def ready(self) -> None:
        """As `Stop`."""

    def pairs(self) -> list[PreferencePair]:
        """All pairs, by partition."""
        return records(self.bus, self.kafka, PREFERENCES)

    def check(self, step: str) -> None:
        """What is committed has its pair, or needs none."""
        made = {pair.request_id for pair in self.pairs()}
        missing = SAMPLED - made
        lost = not_done(self.bus, self.kafka, REQUESTS, lambda request: request.request_id not in missing)
        assert not lost, f"{step}: these requests are committed, and have no pair: {lost}"

    def _ask(self) -> bool:
        """Publish the next requests; whether all of them have been."""
        asked = sum(ends(self.bus, self.kafka, REQUESTS).values())
        publish(self.bus, self.kafka, REQUESTS, STREAM[asked : asked + 3])
        return asked >= len(STREAM)
