"""What cannot be shown here is left out with its reason, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from chaos import run
from chaos.brokers import KINDS, Broker, best_kind
from chaos.fault import Context, Fault, Outcome
from chaos.faults import REGISTRY
from chaos.kafka_process import HOME
from onerec.errors import SettingsError
from onerec.settings import KafkaSettings

CLUSTER, CONTAINERS = {"cluster-leader-kill"}, {"container-leader", "container-trainer"}


@contextmanager
def unused(_directory: Path) -> Iterator[Broker]:
    yield Broker("unused", KafkaSettings(), exactly_once=True)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Apache Kafka, no Docker engine."""

    def no_engine(**_: Any) -> None:
        raise docker.errors.DockerException("nobody listens")

    monkeypatch.delenv(HOME, raising=False)
    monkeypatch.setattr(docker, "from_env", no_engine)
    monkeypatch.setattr(run, "KINDS", {"unused": unused})
    monkeypatch.setattr(run, "read_slice", lambda _items: None)


def left_out(names: set[str], directory: Path) -> dict[str, str]:
    found = run.run_faults("unused", sorted(names), directory=directory, long=True, seed=1)
    assert not found["faults"]
    assert not found["identical"], "nothing was shown"
    reasons: dict[str, str] = found["left_out"]
    return reasons


@pytest.mark.usefixtures("bare")
def test_without_kafka_or_containers_their_faults_are_left_out_with_the_reason(tmp_path: Path) -> None:
    assert left_out(CLUSTER, tmp_path) == dict.fromkeys(CLUSTER, "KAFKA_HOME is not set.")
    assert left_out(CONTAINERS, tmp_path) == dict.fromkeys(CONTAINERS, "no Docker engine answers")


@pytest.mark.usefixtures("bare")
def test_without_kafka_the_embedded_broker_shows_what_it_can() -> None:
    assert best_kind() == "embedded"
    embedded = Broker("embedded", KafkaSettings(), exactly_once=False)
    shown = {fault.name for fault in REGISTRY if fault.missing(embedded) is None}
    assert shown == {"sigkill", "stalled-worker", "stalled-trainer", "store-away", "overload"}


def test_a_cluster_shows_everything_but_a_single_node() -> None:
    cluster = Broker("cluster", KafkaSettings(), exactly_once=True)
    needed_here = CLUSTER | CONTAINERS
    missing = {fault.name for fault in REGISTRY if fault.name not in needed_here and fault.missing(cluster)}
    assert missing == {"broker-restart"}


def test_an_unknown_broker_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--broker other is none of kafka, cluster, embedded\."):
        run.run_faults("other", (), directory=tmp_path, long=False, seed=1)
    assert list(KINDS) == ["kafka", "cluster", "embedded"]


@pytest.mark.usefixtures("bare")
def test_a_fault_that_cannot_be_injected_fails_and_the_others_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_context: Context) -> Outcome:
        raise OSError("no such engine")

    def holds(_context: Context) -> Outcome:
        return Outcome(0, 0, 0, identical=True)

    faults = tuple(Fault(name, injected="", promise="", run=body) for name, body in (("a", broken), ("b", holds)))
    monkeypatch.setattr(run, "REGISTRY", faults)
    found = run.run_faults("unused", (), directory=tmp_path, long=True, seed=1)
    assert {name: fault["identical"] for name, fault in found["faults"].items()} == {"a": False, "b": True}
    assert "no such engine" in found["faults"]["a"]["seen"]
    assert not found["identical"]
