"""A published version is made again, bit for bit, from a checkpoint or the seed, the journal and the log."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from onerec.errors import CheckFailedError, ExitCode
from onerec.kafka import admin
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import JournalKind
from schemas.topics import HISTORIES, ITEM_TOKENS, MODEL_VERSIONS, PREFERENCES, SESSIONS, TOPICS, TRAINER_JOURNAL, Topic
from tests.trainer import toy
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import ROOT, World
from trainer import environment
from trainer.intake import read_topic
from trainer.reproduce import reproduce

pytestmark = pytest.mark.broker
Change = Callable[[Topic, int, Any], Any]
"""(topic, offset, record) -> the record that is there instead, None for none."""


@pytest.fixture
def world(kafka: KafkaSettings, tmp_path: Path) -> World:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    return world


def learn_and_publish(world: World, first: int, *, checkpoint: bool = False) -> None:
    """A trainer's life: two more versions, each of four sessions and a pair."""
    with trainer(world) as running:
        for start in (first, first + 4):
            world.publish_sessions([toy.session(n, [n % 50, (3 * n) % 50]) for n in range(start, start + 4)])
            world.publish_pairs([toy.pair(start, [1, 2, 3], [4, 5, 6], (-12.0, -12.5))])
            learn_all(running, sessions=4, pairs=1)
            running.publish()
            if checkpoint:
                running.checkpoint()


def announced(world: World) -> dict[int, str]:
    return {version.version: version.sha256 for version in world.versions()}


def with_the_log_changed(world: World, change: Change) -> World:
    """The same cluster and folder, but topics of another prefix, whose records are copies but for `change`."""
    there = world.kafka.model_copy(update={"topic_prefix": world.kafka.topic_prefix + "changed-"})
    admin.create_topics(there)
    writer = RecordWriter(there)
    for topic in (HISTORIES, ITEM_TOKENS, SESSIONS, PREFERENCES, MODEL_VERSIONS, TRAINER_JOURNAL):
        for received in read_topic(world.kafka, topic, admin.beginning_offsets(world.kafka, topic), 60).records:
            record = change(topic, received.offset, received.record)
            if record is not None:
                writer.send(topic, received.key, record, timestamp_ms=1000, partition=received.partition)
    writer.flush(60)
    return World(there, world.folder, world.trainer)


def test_from_a_checkpoint_and_from_the_seed(world: World) -> None:
    learn_and_publish(world, 1, checkpoint=True)
    newest = reproduce(world.settings, [3])
    assert newest.identical
    assert newest.same_environment
    assert newest.versions[0].base.startswith("checkpoint of step")
    assert 0 < newest.versions[0].steps < newest.versions[0].step
    everything = reproduce(world.settings, None, from_seed=True)
    assert everything.identical
    assert {each.version: each.made_sha256 for each in everything.versions} == announced(world)
    assert [each.base for each in everything.versions] == ["seed"] * 3
    assert [each.steps for each in everything.versions] == [each.step for each in everything.versions]
    first = reproduce(world.settings, [1]).versions[0]
    assert first.base == "seed", "its own checkpoint would prove nothing"


def test_a_seed_by_the_clock_in_two_threads_and_restarts_with_other_settings(world: World) -> None:
    """Each step is executed as it was, whatever the settings say today."""
    seed = {"samples": None, "budget_s": 0.4, "threads": 2, "batch": 8, "settle_s": 0.1, "wait_s": 0.0}
    world.trainer = {"seed": seed}
    learn_and_publish(world, 1)
    world.trainer = {"seed": seed, "threads": 2, "learning_rate": 0.01, "publish_dtype": "float32", "betas": (0.5, 0.9)}
    learn_and_publish(world, 9)
    world.trainer = {"seed": {"samples": 8}, "random_seed": 99}
    found = reproduce(world.settings, None, from_seed=True)
    assert found.identical
    assert {each.version: each.made_sha256 for each in found.versions} == announced(world)
    assert len(found.versions) == 5


def test_a_seed_that_was_killed_and_a_new_seed_on_an_old_log(world: World) -> None:
    """Every version has its own seed's story; one that nobody finished has none."""
    learn_and_publish(world, 1)
    whole = world.journal()
    half = [entry for entry in whole if entry.step <= 2 and entry.kind is not JournalKind.PUBLISH]
    writer = RecordWriter(world.kafka)
    for entry in half:
        later = {"epoch": 2, "seed": entry.seed + (entry.kind is JournalKind.STEP)}
        writer.send(TRAINER_JOURNAL, b"onerec", type(entry)(**{**fields(entry), **later}))
    writer.flush(60)
    world.folder = world.folder / "elsewhere"
    world.folder.mkdir()
    world.trainer = {"random_seed": 4}
    learn_and_publish(world, 9)
    found = reproduce(world.settings, None, from_seed=True)
    assert found.identical
    assert [each.version for each in found.versions] == [1, 2, 3, 4, 5, 6]


def fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def footprint(world: World) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """All that could be written to: the ends of every topic, and every file with its content."""
    ends = {topic.name: admin.end_offsets(world.kafka, topic) for topic in TOPICS}
    files = [path for path in world.folder.rglob("*") if path.is_file() and path.suffix not in {".toml", ".log"}]
    return ends, {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_writes_nothing_beside_a_live_trainer(world: World) -> None:
    world.send_raw(HISTORIES, b"no avro")
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5, toy.UNKNOWN_ITEM])])
        world.send_raw(SESSIONS, b"no avro")
        learn_all(running, sessions=2)
        running.checkpoint()
        before = footprint(world)
        assert reproduce(world.settings, None, from_seed=True).identical
        assert reproduce(world.settings, [2]).identical
        assert footprint(world) == before
        world.publish_sessions([toy.session(2, [6])])
        learn_all(running, sessions=1)
        running.publish()
    assert reproduce(world.settings, [3]).identical


def test_a_torn_checkpoint_is_passed_over(world: World) -> None:
    learn_and_publish(world, 1, checkpoint=True)
    whole = reproduce(world.settings, [3]).versions[0]
    folder = world.folder / "state" / "trainer" / "onerec" / f"step-{int(whole.base.split()[-1]):012d}"
    (folder / "state.safetensors").write_bytes(b"torn")
    again = reproduce(world.settings, [3]).versions[0]
    assert again.identical
    assert again.steps > whole.steps


def test_a_record_with_other_content_is_found(world: World) -> None:
    learn_and_publish(world, 1)

    def relabelled(topic: Topic, offset: int, record: Any) -> Any:
        return toy.session(record.session_id, [49, 48]) if topic is SESSIONS and offset == 1 else record

    changed = with_the_log_changed(world, relabelled)
    found = reproduce(changed.settings, None, from_seed=True)
    one, two, three = found.versions
    assert (one.identical, two.identical, three.identical) == (True, False, False)
    assert found.same_environment
    assert not found.passed
    assert two.distance is not None
    assert two.distance.max_abs > 0
    assert two.first_difference is not None
    assert one.step < two.first_difference <= two.step
    assert "log, journal or checkpoint have changed" in two.sentence()


@pytest.mark.parametrize("topic", [SESSIONS, TRAINER_JOURNAL])
def test_a_record_that_is_gone_is_a_sentence(world: World, topic: Topic) -> None:
    learn_and_publish(world, 1)
    gone = {SESSIONS: 1, TRAINER_JOURNAL: 2}[topic]

    def without(at: Topic, offset: int, record: Any) -> Any:
        return None if at is topic and offset == gone else record

    changed = with_the_log_changed(world, without)
    said = {
        SESSIONS: r"the broker has 0 to \d+: records were deleted|The log changed|consumed something else",
        TRAINER_JOURNAL: r"The journal goes from step 1 to step 3: it is not whole",
    }
    with pytest.raises(CheckFailedError, match=said[topic]):
        reproduce(changed.settings, None, from_seed=True)


def test_another_sha_on_model_versions_is_found(world: World) -> None:
    learn_and_publish(world, 1)

    def forged(topic: Topic, offset: int, record: Any) -> Any:
        if topic is MODEL_VERSIONS and record.version == 3:
            return type(record)(**{**fields(record), "sha256": "0" * 64})
        return record

    found = reproduce(with_the_log_changed(world, forged).settings, None, from_seed=True)
    assert [each.identical for each in found.versions] == [True, True, False]
    assert not found.passed
    assert "was announced with SHA-256 000000000000, the journal says" in found.versions[2].sentence()


def command(world: World, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`onerec versions reproduce`, as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "onerec", "versions", "reproduce", *arguments, "--config", str(world.config())],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


@pytest.mark.slow
def test_the_command_after_a_kill_and_on_another_environment(world: World) -> None:
    """Kernels of another instruction set stand for another machine kind: not the same bits, but near."""
    process = world.start()
    world.publish_sessions([toy.session(n, [n % 50, (3 * n) % 50]) for n in range(40)])
    world.wait_for_sessions(40, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(announced(world))
    same = command(world, "1", "--through", str(last), "--from-seed", "--json")
    assert same.returncode == ExitCode.DONE, same.stderr
    answer = json.loads(same.stdout)
    assert (answer["identical"], answer["same_environment"]) == (True, True)
    assert {each["version"]: each["made_sha256"] for each in answer["versions"]} == announced(world)

    other = command(world, str(last), "--from-seed", ATEN_CPU_CAPABILITY="default")
    assert other.returncode == ExitCode.DONE, other.stderr
    assert f"Version {last} was made on another environment (kernel_variables" in other.stdout
    assert "within the bound of" in other.stdout

    unknown = command(world, str(last + 9))
    assert unknown.returncode == ExitCode.BAD_ARGUMENTS
    assert f"error: The journal does not name version {last + 9}" in unknown.stderr
    assert command(world).returncode == ExitCode.BAD_ARGUMENTS


def test_beyond_the_bound_another_environment_is_no_excuse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    learn_and_publish(world, 1)
    described = environment.describe
    monkeypatch.setattr(environment, "describe", lambda settings: described(settings) | {"cpu": "another"})
    near = reproduce(world.settings, [3], from_seed=True)
    assert near.identical
    assert not near.same_environment

    def unlearned(topic: Topic, offset: int, record: Any) -> Any:
        if topic is HISTORIES:
            return type(record)(**{**fields(record), "history_labels": bytes(reversed(record.history_labels))})
        if topic is TRAINER_JOURNAL and record.environment.get("seed_data"):
            return type(record)(**{**fields(record), "environment": {**record.environment, "seed_data": ""}})
        return record

    changed = with_the_log_changed(world, unlearned)
    changed.trainer = world.trainer
    far = reproduce(changed.settings, [3], from_seed=True).versions[0]
    assert not far.passed
    assert "beyond the bound" in far.sentence()
    assert "is another)" in far.sentence()
