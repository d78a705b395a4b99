"""The joiner as a process over a slice of the real log: what it publishes audits clean, shuffled, late and imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import audit
from audit.findings import Findings, Kind
from onerec.settings import KafkaSettings, Settings, load_settings
from schemas.topics import DEAD_LETTERS, IMPRESSIONS, SESSIONS
from tests.broker import Broker
from tests.kafka.reading import followed
from tests.stream.joiner.running import ROOT, JoinerProcess, eventually

pytestmark = pytest.mark.broker

EXPOSURES = 1500
PATIENCE_S = 120
RULES: dict[str, Any] = {"known_items_only": False, "idle_close_s": 2.0, "transaction_ms": 50}


def settings_of(kafka: KafkaSettings, **joiner: Any) -> Settings:
    return load_settings(kafka=kafka.model_dump(), stream={"joiner": RULES | joiner})


def replay(kafka: KafkaSettings, directory: Path, only: str, *options: str, **replaying: Any) -> None:
    """`onerec replay` with these parts of the log that ships with the project."""
    config = directory / "replay.toml"
    lines = ["[kafka]", f'bootstrap_servers = "{kafka.bootstrap_servers}"', f"partitions = {kafka.partitions}"]
    lines += [f'topic_prefix = "{kafka.topic_prefix}"', f'group_prefix = "{kafka.group_prefix}"', "[stream.replay]"]
    config.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in replaying.items())]))
    command = [sys.executable, "-m", "stream", "replay", "--only", only, *options, "--config", str(config)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=PATIENCE_S, capture_output=True)


def until_all_is_closed(kafka: KafkaSettings, joiner: JoinerProcess) -> None:
    """Every impression is in a session or in dead-letters, and no action waits."""

    with followed(kafka, DEAD_LETTERS) as letters, followed(kafka, SESSIONS) as sessions:

        def closed() -> bool:
            refused = sum(letter.topic == IMPRESSIONS.name for letter in letters())
            return bool(sum(len(session.items) for session in sessions()) + refused >= EXPOSURES)

        eventually(closed, joiner.output())
    joiner.until(lambda samples: samples.get("stream_joiner_waiting_actions") == 0)


def assert_clean(findings: Findings) -> None:
    assert findings.clean, "\n".join(map(str, findings.places))


@pytest.mark.parametrize(
    "disorder", [{}, {"shuffle_ms": 60_000, "late_share": 0.1}], ids=["in order", "shuffled and late"]
)
def test_a_slice_of_the_real_log_audits_clean(
    broker: Broker, kafka: KafkaSettings, tmp_path: Path, disorder: dict[str, Any]
) -> None:
    replay(kafka, tmp_path, "histories")
    with JoinerProcess(kafka, tmp_path, **RULES) as joiner:
        replay(kafka, tmp_path, "events", "--events", str(EXPOSURES), **disorder)
        until_all_is_closed(kafka, joiner)
        assert joiner.stop() == 0

    findings = audit.run(settings_of(kafka), broker_repeats_allowed=not broker.exactly_once)

    assert_clean(findings)
    sessions, shown = findings.line("sessions"), findings.line("impressions")
    assert sessions.found == sessions.expected > EXPOSURES // 10
    assert shown.found == shown.expected == EXPOSURES
    assert sessions.found == findings.line("sessions learned").counts[Kind.OPEN], "no trainer ran"
    assert {name for name, line in findings.lines.items() if line.counts[Kind.OPEN]} == {"sessions learned", "requests"}
