"""The broker of the tests: the order, the choice by name, and what is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import broker as brokers

ROOT = Path(__file__).parents[2]
PYTEST = (sys.executable, "-m", "pytest")
MARKED = """
import pytest

@pytest.mark.exactly_once
def test_judged(broker):
    raise AssertionError("must not run")

def test_plain(broker):
    assert broker.kind == "embedded"
"""


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (brokers.SERVERS, brokers.CHOICE, brokers.HOME):
        monkeypatch.delenv(name, raising=False)


def start_only(monkeypatch: pytest.MonkeyPatch, *available: str) -> None:
    """As if only these kinds could be had; none is really started but the embedded one."""
    for name, kind in brokers.KINDS.items():
        missing = (lambda: None) if name in available else (lambda name=name: f"no {name} here")
        monkeypatch.setitem(brokers.KINDS, name, brokers.Kind(missing, kind.start))


def test_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    start_only(monkeypatch, "container", "kafka", "embedded")
    assert brokers.plan() == "container"
    start_only(monkeypatch, "kafka", "embedded")
    assert brokers.plan() == "kafka; no container here"
    start_only(monkeypatch, "embedded")
    assert brokers.plan() == "embedded; no container here; no kafka here"
    monkeypatch.setenv(brokers.CHOICE, "kafka")
    assert brokers.plan() == "kafka (ONEREC_TEST_BROKER)"
    monkeypatch.setenv(brokers.SERVERS, "kafka.example:9092")
    assert brokers.plan() == "given (ONEREC_BOOTSTRAP_SERVERS)"


def test_what_cannot_be_had_is_passed_over_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    start_only(monkeypatch, "embedded")
    with brokers.running_broker(tmp_path) as broker:
        assert broker.kind == "embedded"
        assert broker.passed_over == ("no container here", "no kafka here")


def test_the_one_asked_for_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(brokers.CHOICE, "kafka")
    with pytest.raises(brokers.UnavailableError, match="KAFKA_HOME is not set"), brokers.running_broker(tmp_path):
        pass
    monkeypatch.setenv(brokers.HOME, str(tmp_path))
    with pytest.raises(brokers.UnavailableError, match="holds no Kafka"), brokers.running_broker(tmp_path):
        pass
    monkeypatch.setenv(brokers.CHOICE, "rabbit")
    with pytest.raises(brokers.UnavailableError, match="none of container, kafka"), brokers.running_broker(tmp_path):
        pass


def test_a_given_broker_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(brokers.SERVERS, "kafka.example:9092")
    with brokers.running_broker(tmp_path) as broker:
        assert broker == brokers.Broker("given", "kafka.example:9092", exactly_once=True)


def test_the_report_says_where_it_ran_and_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_marked.py").write_text(MARKED)
    done = subprocess.run(
        [*PYTEST, "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", "-p", "tests.conftest", tmp_path],
        env=os.environ | {brokers.CHOICE: "embedded", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kafka: embedded (ONEREC_TEST_BROKER)" in done.stdout
    assert "broker tests ran on embedded (127.0.0.1:" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "the embedded broker does not keep Kafka's transaction contract" in done.stdout
