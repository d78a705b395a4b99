"""Who sends waits for those who learn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from onerec import followers
from onerec.errors import SettingsError
from onerec.followers import Followers
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
    monkeypatch.setattr(followers, "LOOK_EVERY_S", 0.0)
    lag, port = trainer
    lag.set(1_000)
    seen: list[float] = []

    def read(endpoints: Mapping[str, int]) -> Samples:
        samples = scrape(endpoints)
        seen.append(samples.get("trainer_lag_events", job="trainer"))
        lag.dec(250)
        return samples

    Followers({"trainer": port}, Stop("test"), most_behind=300, read=read).keep_up()
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

    Followers({"trainer": port}, stop, most_behind=300, read=read).keep_up()
    assert seen == [1_000], "it returns although the trainer is behind, and does not look again"


def test_who_never_catches_up_is_named(
    trainer: tuple[Gauge, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(followers, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(followers, "LONGEST_WAIT_S", 0.0)
    lag, port = trainer
    lag.set(1_000)
    Followers({"trainer": port}, Stop("test"), most_behind=300).keep_up()
    assert "trainer did not catch up" in caplog.text


def test_without_followers_nobody_is_asked() -> None:
    asked: list[Mapping[str, int]] = []

    def read(endpoints: Mapping[str, int]) -> Samples:
        asked.append(endpoints)
        return Samples({})

    Followers({}, Stop("test"), read=read).keep_up()
    assert asked == []


@pytest.mark.parametrize("wrong", ["trainer", "=9101", "trainer=", "trainer=now"])
def test_a_follower_that_is_none_is_a_sentence(wrong: str) -> None:
    assert followers.ports_of(["joiner=9100", "trainer-plain=9101"]) == {"joiner": 9100, "trainer-plain": 9101}
    with pytest.raises(SettingsError, match=f"--follower {wrong} names nobody"):
        followers.ports_of([wrong])
