"""Simulated time waits for those who learn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from evaluation.ab import pace
from evaluation.ab.pace import Pace
from onerec.metrics import Samples, scrape
from onerec.service import Stop


@pytest.fixture
def trainer() -> Iterator[tuple[Gauge, int]]:
    """The lag that a service shows, and its port."""
    registry = CollectorRegistry()
    lag = Gauge("trainer_lag_events", "Of a trainer.", registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield lag, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_waits_until_who_follows_has_caught_up(trainer: tuple[Gauge, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.0)
    lag, port = trainer
    lag.set(1_000)
    seen: list[float] = []

    def read(endpoints: Mapping[str, int]) -> Samples:
        samples = scrape(endpoints)
        seen.append(samples.get("trainer_lag_events", job="trainer"))
        lag.dec(250)
        return samples

    Pace({"trainer": port}, Stop("test"), most_behind=300, read=read).keep()
    assert seen == [1_000, 750, 500, 250]


def test_who_is_asked_to_end_waits_for_nobody(trainer: tuple[Gauge, int]) -> None:
    lag, port = trainer
    lag.set(1_000)
    stop, seen = Stop("test"), list[float]()
    stop.set()

    def read(endpoints: Mapping[str, int]) -> Samples:
        samples = scrape(endpoints)
        seen.append(samples.get("trainer_lag_events", job="trainer"))
        return samples

    Pace({"trainer": port}, stop, most_behind=300, read=read).keep()
    assert seen == [1_000], "it returns although the trainer is behind, and does not look again"


def test_who_never_catches_up_is_named(
    trainer: tuple[Gauge, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(pace, "LONGEST_WAIT_S", 0.0)
    lag, port = trainer
    lag.set(1_000)
    Pace({"trainer": port}, Stop("test"), most_behind=300).keep()
    assert "trainer did not catch up" in caplog.text
