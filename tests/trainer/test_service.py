"""The trainer on a real broker: seed, stream, bad input, resume, and what a person must mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError
from onerec.kafka import admin, metadata
from onerec.kafka.embedded import EmbeddedBroker
from onerec.service import Stop
from onerec.settings import KafkaSettings
from onerec.weights.store import WeightsStore
from onerec.weights.tensors import digest
from schemas.packed import unpack_longs
from schemas.reasons import Reason
from schemas.records import JournalKind, VersionKind
from schemas.topics import DEAD_LETTERS, ITEM_TOKENS, PREFERENCES, SESSIONS
from tests.trainer import toy
from tests.trainer.world import DEADLINE_S, World
from trainer.guard import ClusterWatch
from trainer.loop import Trainer
from trainer.publish import cast
from trainer.service import start


@pytest.fixture
def world(kafka: KafkaSettings, tmp_path: Path) -> World:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    return world


@contextmanager
def trainer(world: World) -> Iterator[Trainer]:
    """A trainer in this process, which the test drives step by step."""
    started = start(world.settings, Stop("test"))
    assert started is not None
    try:
        yield started
    finally:
        started.close()


def learn_all(running: Trainer, sessions: int = 0, pairs: int = 0) -> None:
    """Step until so many sessions and pairs have been taken."""
    taken = {SESSIONS.name: 0, PREFERENCES.name: 0}
    while taken[SESSIONS.name] < sessions or taken[PREFERENCES.name] < pairs:
        supplied = running.supply.live(lambda: True)
        if supplied is not None:
            for taken_range in running.learn(supplied).ranges:
                if taken_range.topic in taken:
                    taken[taken_range.topic] += taken_range.records


def test_seed_is_version_one_and_what_the_stream_brings_comes_after(world: World) -> None:
    with trainer(world) as running:
        seed = running.state.step
        assert seed > 0
        assert [(v.version, v.kind, v.step) for v in world.versions()] == [(1, VersionKind.FULL, seed)]
        world.publish_sessions([toy.session(n, [n, n + 1]) for n in range(1, 6)])
        world.publish_pairs([toy.pair(1, [1, 2, 3], [4, 5, 6], (-12.0, -12.0))])
        learn_all(running, sessions=5, pairs=1)
        running.publish()
        expected = digest(cast(running.state.weights(), "bfloat16"))
    newest = world.versions()[-1]
    assert (newest.version, newest.parent, newest.kind, newest.preset) == (2, 1, VersionKind.DELTA, "tiny")
    assert newest.sha256 == expected == WeightsStore(str(world.folder / "store")).read(2).sha256
    assert sum(o.next_offset for o in newest.offsets if o.topic == SESSIONS.name) == 5
    assert sum(o.next_offset for o in newest.offsets if o.topic == PREFERENCES.name) == 1
    assert sorted(unpack_longs(newest.learned_produced_ms)) == [5000] * 5 + [5001] * 5
    assert (newest.metrics["sessions"], newest.metrics["pairs"]) == (5, 1)


def test_journal_tells_what_was_consumed_before_the_version_is_announced(world: World) -> None:
    with trainer(world) as running:
        world.publish_sessions([toy.session(n, [n]) for n in range(1, 6)])
        learn_all(running, sessions=5)
        running.publish()
    journal = world.journal()
    assert [entry.kind for entry in journal[:2]] == [JournalKind.START, JournalKind.STEP]
    assert {r.topic for r in journal[0].ranges} == {"histories", ITEM_TOKENS.name}
    assert journal[0].environment["threads"] == "1"
    consumed = [r for entry in journal for r in entry.ranges if r.topic == SESSIONS.name]
    assert sum(r.applied for r in consumed) == sum(r.records for r in consumed) == 5
    publishes = [(e.version, e.weights_sha256) for e in journal if e.kind is JournalKind.PUBLISH]
    assert publishes == [(v.version, v.sha256) for v in world.versions()]


def test_bad_input_goes_to_dead_letters_and_training_goes_on(world: World) -> None:
    with trainer(world) as running:
        world.send_raw(SESSIONS, b"no avro")
        world.publish_sessions([toy.session(1, [5, toy.UNKNOWN_ITEM]), toy.session(2, [6]), toy.session(2, [6])])
        learn_all(running, sessions=4)
        running.publish()
    letters = world.all(DEAD_LETTERS)
    assert sorted(letter.reason for letter in letters) == [Reason.UNDECODABLE, Reason.UNKNOWN_ITEM]
    assert {letter.service for letter in letters} == {"trainer"}
    assert world.versions()[-1].metrics["sessions"] == 2


def test_item_that_appears_just_before_its_session_is_learned(world: World) -> None:
    """The session may be read before the semantic id of its item: the catalogue is looked at again first."""
    with trainer(world) as running:
        world.publish_catalogue([toy.ITEMS])
        world.publish_sessions([toy.session(1, [toy.ITEMS])])
        learn_all(running, sessions=1)
        running.publish()
    assert world.all(DEAD_LETTERS) == []
    tokens = [r for entry in world.journal() for r in entry.ranges if r.topic == ITEM_TOKENS.name]
    assert [(r.first_offset, r.next_offset) for r in tokens] == [(0, toy.ITEMS), (toy.ITEMS, toy.ITEMS + 1)]


def test_successor_goes_on_where_the_journal_ends(world: World) -> None:
    world.trainer = {"keep_checkpoints": 1}
    with trainer(world) as running:
        world.publish_sessions([toy.session(n, [n]) for n in range(1, 4)])
        learn_all(running, sessions=3)
        running.checkpoint()
        world.publish_sessions([toy.session(n, [n]) for n in range(4, 9)])
        learn_all(running, sessions=5)
        running.publish()
        step, version, last = running.state.step, running.state.version, running.state.weights()
        expected = digest(last)
    with trainer(world) as successor:
        assert (successor.state.step, successor.state.version) == (step, version)
        assert digest(successor.state.weights()) == expected
        world.publish_sessions([toy.session(9, [9])])
        learn_all(successor, sessions=1)
        successor.publish()
    versions = world.versions()
    assert [v.version for v in versions] == list(range(1, version + 2))
    assert versions[-1].kind is VersionKind.DELTA


def test_each_start_has_an_epoch_of_its_own_even_right_after_a_checkpoint(world: World) -> None:
    """Nothing follows the checkpoint in the journal; the epoch before is known all the same."""
    for number in range(3):
        with trainer(world) as running:
            world.publish_sessions([toy.session(number, [5])])
            learn_all(running, sessions=1)
            running.checkpoint()
    starts = [entry for entry in world.journal() if entry.kind is JournalKind.START]
    assert [entry.epoch for entry in starts] == [1, 2, 3]


def test_published_dtype_of_a_journalled_version_is_kept(world: World) -> None:
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        sha = digest(cast(running.state.weights(), "bfloat16"))
        running.journal.publish(running.state.step, 2, sha)
        running.journal.flush()
    world.trainer = {"publish_dtype": "float32"}
    with trainer(world):
        assert world.versions()[-1].sha256 == sha
    assert WeightsStore(str(world.folder / "store")).read(2).sha256 == sha


def test_version_that_a_crash_kept_from_being_announced_is_announced(world: World) -> None:
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        sha = digest(cast(running.state.weights(), "bfloat16"))
        running.journal.publish(running.state.step, 2, sha)
        running.journal.flush()
    assert len(world.versions()) == 1
    with trainer(world) as successor:
        assert successor.state.version == 2
    newest = world.versions()[-1]
    assert (newest.version, newest.sha256) == (2, sha)
    assert unpack_longs(newest.learned_produced_ms) == [5000]
    assert WeightsStore(str(world.folder / "store")).read(2).sha256 == sha


def test_store_that_cannot_be_reached_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is journalled, so it must come: the same bits, once the store takes them."""
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        store, hidden = world.folder / "store", world.folder / "hidden"
        store.rename(hidden)
        store.write_text("a file where the folder was")
        waited: list[float] = []

        def repair(seconds: float) -> bool:
            waited.append(seconds)
            if len(waited) == 2:
                store.unlink()
                hidden.rename(store)
            return False

        monkeypatch.setattr(running.publisher, "_wait", repair)
        running.publish()
    assert len(waited) == 2
    assert [v.version for v in world.versions()] == [1, 2]
    assert WeightsStore(str(store)).read(2).sha256 == world.versions()[-1].sha256


def test_journalled_steps_keep_the_settings_they_were_made_with(world: World) -> None:
    with trainer(world) as running:
        world.publish_sessions([toy.session(n, [n]) for n in range(1, 6)])
        learn_all(running, sessions=5)
        running.journal.flush()
        expected = digest(running.state.weights())
    world.trainer = {"learning_rate": 0.1, "train_on": "all", "betas": (0.5, 0.5)}
    with trainer(world) as successor:
        assert digest(successor.state.weights()) == expected
        assert successor.state.settings.learning_rate == 0.1
        assert successor.state.onerec_optimizer.param_groups[0]["betas"] == (0.5, 0.5)


def test_new_seed_on_an_old_log_counts_versions_on(world: World) -> None:
    with trainer(world):
        pass
    world.folder = world.folder / "elsewhere"
    world.folder.mkdir()
    with trainer(world) as running:
        assert running.state.version == 2
    assert [(v.version, v.kind) for v in world.versions()] == [(1, VersionKind.FULL), (2, VersionKind.FULL)]


def test_seed_without_any_history_is_published_untrained(kafka: KafkaSettings, tmp_path: Path) -> None:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    with trainer(world) as running:
        assert (running.state.step, running.state.version) == (0, 1)


def test_log_that_vanished_is_a_sentence_with_its_remedy(world: World) -> None:
    with trainer(world) as running:
        world.publish_sessions([toy.session(n, [n]) for n in range(1, 6)])
        learn_all(running, sessions=5)
        running.checkpoint()
    other = world.kafka.model_copy(update={"topic_prefix": world.kafka.topic_prefix + "other-"})
    admin.create_topics(other)
    world.kafka = other
    with pytest.raises(CheckFailedError, match=r"no longer has the log.*sessions.*store\.state_dir"):
        start(world.settings, Stop("test"))


def test_another_cluster_is_recognised_although_its_offsets_would_do(world: World, tmp_path: Path) -> None:
    with trainer(world):
        pass
    with EmbeddedBroker(tmp_path / "other") as other:
        world.kafka = world.kafka.model_copy(update={"bootstrap_servers": other.bootstrap_servers})
        admin.create_topics(world.kafka)
        world.publish_catalogue()
        process = world.start()
        assert process.wait(DEADLINE_S) == 4
    assert "no longer has the log that this trainer's checkpoint continues: its cluster was" in world.log()


def test_broker_that_is_replaced_while_running_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.guard.INTERVAL_S", 0.0)
    with trainer(world) as running:
        ClusterWatch(running.cluster_id).look(running.supply.intake)
        with pytest.raises(CheckFailedError, match=r"now .* answers"):
            ClusterWatch("the one before").look(running.supply.intake)


def test_missing_topics_are_named(bare_kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    world = World(bare_kafka.model_copy(update={"topic_prefix": "absent-"}), tmp_path)
    with pytest.raises(DependencyMissingError, match="onerec topics create"):
        start(world.settings, Stop("test"))


def test_unknown_preset_is_named(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = World(kafka, tmp_path).settings
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"preset": "huge"})})
    with pytest.raises(SettingsError, match="huge"):
        start(settings, Stop("test"))
