"""`onerec recommend` against a running worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from onerec.cli.app import app
from onerec.settings import KafkaSettings, Settings
from tests.inference.loop import World, running
from tests.inference.publishing import Publisher, random_weights, settings_of

pytestmark = pytest.mark.broker
PATIENT = ("--timeout", "60")
"""The request's deadline, too: a busy machine answers later."""


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    return settings_of(kafka, tmp_path, decoding={"beam_width": 16})


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("bootstrap_servers", "topic_prefix", "group_prefix"):
        monkeypatch.setenv(f"ONEREC_KAFKA__{key.upper()}", str(getattr(settings.kafka, key)))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["recommend", *arguments])


@pytest.mark.usefixtures("command")
def test_it_prints_items_with_tags_and_version(settings: Settings) -> None:
    world = World(settings)
    world.items(range(60))
    world.history(1, [1001])
    Publisher(settings).publish(1, random_weights(1))
    with running(settings) as worker:
        worker.wait_ready()
        shown = run("1", "--items", "4", "--tags", "even", *PATIENT)
        assert shown.exit_code == 0, shown.output
        assert "model version 1" in shown.output
        assert "even, all" in shown.output
        parsed = run("9", "--items", "4", "--json", *PATIENT)
        answer = json.loads(parsed.output)
        assert answer["status"] == "answered"
        assert [len(answer["ranked"]), len(answer["session"]), answer["history_length"]] == [4, 3, 0]
        assert {"item_id", "log_prob", "tags"} == answer["ranked"][0].keys()
        assert "all" in answer["ranked"][0]["tags"]
        refused = run("1", "--tags", "nobody has this", *PATIENT)
        assert refused.exit_code == 4
        assert "refused: no item of the catalogue" in refused.output
    world.close()


@pytest.mark.usefixtures("command")
def test_without_a_worker_it_says_so() -> None:
    shown = run("1", "--timeout", "5")  # the request has to reach a broker that is busy with other tests
    assert shown.exit_code == 3
    assert "No worker has answered within 5 s. Start one" in shown.output


def test_without_a_broker_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    shown = run("1", "--timeout", "0.5")
    assert shown.exit_code == 3
    assert "No Kafka broker answers at 127.0.0.1:1" in shown.output
