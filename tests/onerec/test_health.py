"""`python -m onerec.health` tells ready from not ready, and what a ready service goes on without."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from onerec import degraded, health
from onerec.degraded import Lack

READY = {(("service", "worker"),): 1.0}
LABELS = (("lacks", "weights store"), ("service", "worker"))


@pytest.mark.parametrize(
    ("samples", "code", "said"),
    [
        ({"onerec_ready": READY}, 0, ""),
        ({"onerec_ready": READY, "onerec_degraded": {LABELS: 0.0}}, 0, ""),
        ({"onerec_ready": READY, "onerec_degraded": {LABELS: 1.0}}, 0, "ready, but without its weights store"),
        ({"onerec_ready": {(): 0.0}}, 4, "not ready"),
        ({}, 4, "nothing answers on port"),
    ],
)
def test_says_what_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], samples: Any, code: int, said: str
) -> None:
    monkeypatch.setattr(health, "read_metrics", lambda _port, **_: samples)
    assert health.main() == code
    assert said in capsys.readouterr().err


def test_a_lack_is_told_once_in_a_while_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "onerec.degraded")
    lack = Lack("test", "disk")

    def gauge() -> float | None:
        return REGISTRY.get_sample_value("onerec_degraded", {"service": "test", "lacks": "disk"})

    lack.there()
    assert (gauge(), caplog.messages) == (0, [])
    for _ in range(3):
        lack.missing("Make room.")
    assert (gauge(), caplog.messages) == (1, ["without its disk for 0 s: Make room."])
    monkeypatch.setattr(degraded, "TELL_AGAIN_S", 0.0)
    lack._tell_s = 0.0
    lack.missing("Make room.")
    assert len(caplog.messages) == 2
    lack.there()
    lack.there()
    assert (gauge(), caplog.messages[2:]) == (0, ["its disk is back after 0 s"])
