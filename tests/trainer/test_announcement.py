"""On a real broker: a version can be read when the journal leads to it, and a failure of either leaves none behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.admin import WatchedAdmin
from onerec.kafka.follow import TopicFollower
from onerec.settings import KafkaSettings
from schemas.records import ModelVersion
from schemas.topics import MODEL_VERSIONS, TRAINER_JOURNAL
from tests.trainer import toy
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import DEADLINE_S, World
from trainer.announcement import newest_announced
from trainer.journal import read_journal, read_story

pytestmark = pytest.mark.broker
VERSIONS = 5


@pytest.fixture
def world(kafka: KafkaSettings, tmp_path: Path) -> World:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    return world


@pytest.mark.slow
def test_as_soon_as_an_announcement_can_be_read_the_journal_leads_to_it(world: World) -> None:
    seen: list[ModelVersion] = []
    with world.running() as process:
        world.wait(lambda: bool(world.versions()), process)
        follower = TopicFollower(
            world.kafka, MODEL_VERSIONS, lambda received: seen.append(received.record), service="test"
        )
        deadline_s, checked = time.monotonic() + DEADLINE_S, 0
        while checked < VERSIONS:
            follower.poll(0.02)
            for version in seen[checked:]:
                story = read_story(
                    read_journal(world.kafka, version.model, start=0, timeout_s=DEADLINE_S), after_step=0
                )
                published = story.publishes[version.step]
                assert (published.version, published.weights_sha256) == (version.version, version.sha256)
                steps = [entry.step for entry in story.steps if entry.step <= version.step]
                assert steps == list(range(1, version.step + 1))
                checked += 1
                world.publish_sessions([toy.session(checked, [checked, checked + 1])])
            assert process.poll() is None, world.log()
            assert time.monotonic() < deadline_s, f"{checked} versions were announced"
        follower.close()


def journal_takes(kafka: KafkaSettings, max_bytes: int) -> None:
    """Have the broker refuse longer entries."""
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource("topic", clients.topic_name(kafka, TRAINER_JOURNAL), incremental_configs=[entry])
    client = WatchedAdmin(kafka)  # a client that is let go of answers nothing any more
    client.incremental_alter_configs([resource])[resource].result(DEADLINE_S)
    asked, deadline_s = ConfigResource("topic", resource.name), time.monotonic() + DEADLINE_S
    while client.describe_configs([asked])[asked].result(DEADLINE_S)["max.message.bytes"].value != str(max_bytes):
        assert time.monotonic() < deadline_s, "a broker takes a moment to act on a changed setting"


@pytest.mark.exactly_once  # the embedded broker takes entries of any length
def test_a_version_that_the_journal_does_not_take_is_not_announced(world: World) -> None:
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        running.journal.flush()
        journal_takes(world.kafka, 10)
        with pytest.raises(DependencyMissingError):
            running.publish()
        assert newest_announced(world.kafka, "onerec") == 1
    journal_takes(world.kafka, world.kafka.max_message_bytes)
    with trainer(world) as successor:
        successor.checkpoint()
    assert [version.version for version in world.versions()] == [1, 2]


@pytest.mark.exactly_once
def test_an_announcement_that_is_aborted_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the broker, and its trainer goes away before the commit: the successor announces that version."""
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        announcer = running.publisher._announcer
        assert announcer._writer is not None

        def lost(_timeout_s: float) -> None:
            assert announcer._writer is not None
            announcer._writer.flush(DEADLINE_S)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

        def gone() -> None:
            raise CheckFailedError("This trainer is gone.", "Start it again.")

        monkeypatch.setattr(announcer._writer.producer, "commit_transaction", lost)
        monkeypatch.setattr(announcer, "_check_ours", gone)
        with pytest.raises(CheckFailedError):
            running.publish()
    with trainer(world) as successor:
        assert successor.state.version == 2
    assert [version.version for version in world.versions()] == [1, 2], "each can be read once"
