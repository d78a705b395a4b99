"""The journal tells a trainer's story without gaps, and without what an outdated trainer wrote into it."""

from __future__ import annotations

from typing import Any

import pytest

from onerec.errors import CheckFailedError
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import JournalEntry, JournalKind, OffsetRange
from trainer.journal import Journal, read_story


def entry(kind: str, step: int, epoch: int = 1, **more: Any) -> JournalEntry:
    empty: dict[str, Any] = {"ranges": (), "seed": 0, "learning_rate": 0.0, "loss": {}, "environment": {}}
    return JournalEntry(model="m", step=step, kind=JournalKind(kind), epoch=epoch, time_ms=0, **(empty | more))


def test_story_begins_after_the_checkpoint() -> None:
    entries = [entry("start", 0), entry("step", 1), entry("publish", 1, version=1), entry("step", 2), entry("step", 3)]
    story = read_story(enumerate(entries), after_step=1)
    assert [step.step for step in story.steps] == [2, 3]
    assert (story.last_version, story.next_offset, story.epoch) == (1, 5, 1)


def test_steps_know_the_environment_of_their_trainer() -> None:
    entries = [
        entry("step", 1),
        entry("start", 1, epoch=2, environment={"threads": "2"}),
        entry("step", 2, epoch=2),
    ]
    assert read_story(enumerate(entries), after_step=0).environments == [{}, {"threads": "2"}]


def test_what_an_outdated_trainer_writes_is_void() -> None:
    entries = [
        entry("start", 0),
        entry("step", 1),
        entry("start", 1, epoch=2),
        entry("step", 2, epoch=1, seed=666),
        entry("step", 2, epoch=2, seed=7),
        entry("publish", 2, epoch=1, version=9),
    ]
    story = read_story(enumerate(entries), after_step=0)
    assert [(step.step, step.seed) for step in story.steps] == [(1, 0), (2, 7)]
    assert story.publishes == {}
    assert story.last_version == 0


def test_what_an_outdated_trainer_writes_after_the_checkpoint_is_void() -> None:
    """Its successor's start lies before the checkpoint: the checkpoint remembers the epoch."""
    entries = [entry("step", 6, epoch=1, seed=666), entry("publish", 6, epoch=1, version=9), entry("step", 6, epoch=2)]
    story = read_story(enumerate(entries), after_step=5, epoch=2)
    assert [step.seed for step in story.steps] == [0]
    assert (story.publishes, story.last_version) == ({}, 0)


def seed_start(epoch: int) -> JournalEntry:
    ranges = (OffsetRange(topic="item-tokens", partition=0, first_offset=0, next_offset=9, records=0, applied=0),)
    return entry("start", 0, epoch=epoch, ranges=ranges)


def test_a_seed_that_was_not_finished_is_replaced_by_the_next_one() -> None:
    entries = [seed_start(1), entry("step", 1), entry("step", 2), seed_start(2), entry("step", 1, epoch=2, seed=7)]
    assert [(step.step, step.seed) for step in read_story(enumerate(entries), after_step=0).steps] == [(1, 7)]


def test_a_seed_newer_than_the_checkpoint_is_an_error() -> None:
    with pytest.raises(CheckFailedError, match=r"newer seed than the checkpoint of step 3.*Move the checkpoints"):
        read_story(enumerate([entry("step", 4), seed_start(2), entry("step", 1, epoch=2)]), after_step=3)


def test_gap_is_an_error() -> None:
    with pytest.raises(CheckFailedError, match=r"from step 1 to step 3.*Restore topic trainer-journal"):
        read_story(enumerate([entry("step", 1), entry("step", 3)]), after_step=0)


def journal(kafka: KafkaSettings) -> Journal:
    return Journal(kafka, RecordWriter(kafka), "m")


def test_written_entries_are_read_back(kafka: KafkaSettings) -> None:
    first = journal(kafka)
    first.begin(0, {"threads": "1"})
    first.step(1, (), seed=5, learning_rate=0.1, loss={"next_token": 2.0})
    first.publish(1, 1, "abc")
    first.flush()
    story = journal(kafka).story(0)
    assert [(step.step, step.seed, step.learning_rate, dict(step.loss)) for step in story.steps] == [
        (1, 5, 0.1, {"next_token": 2.0})
    ]
    assert story.publishes[1].weights_sha256 == "abc"
    assert first.next_offset == story.next_offset == 3


def test_a_newer_trainer_ends_the_older_one(kafka: KafkaSettings) -> None:
    """A trainer that was paused and thought dead wakes up: it must not publish, and its entries must not count."""
    old = journal(kafka)
    old.begin(0, {})
    old.step(1, (), seed=1, learning_rate=0.1, loss={})
    old.flush()
    new = journal(kafka)
    new.begin(1, {})
    old.step(2, (), seed=666, learning_rate=0.1, loss={})
    with pytest.raises(CheckFailedError, match="taken over"):
        old.flush()
    new.step(2, (), seed=2, learning_rate=0.1, loss={})
    new.flush()
    assert [step.seed for step in journal(kafka).story(0).steps] == [1, 2]


def test_epochs_count_on_from_a_checkpoint_at_the_end_of_the_journal(kafka: KafkaSettings) -> None:
    """A clean stop leaves nothing behind its checkpoint: the trainer that slept at that point must not get away."""
    old = journal(kafka)
    old.begin(0, {})
    old.step(1, (), seed=1, learning_rate=0.1, loss={})
    old.flush()
    new = Journal(kafka, RecordWriter(kafka), "m", start=old.next_offset)
    new.begin(1, {})
    assert new.epoch > old.epoch
    new.step(2, (), seed=2, learning_rate=0.1, loss={})
    new.flush()
    old.step(2, (), seed=666, learning_rate=0.1, loss={})
    with pytest.raises(CheckFailedError, match="taken over"):
        old.flush()
    assert [step.seed for step in journal(kafka).story(0).steps] == [1, 2]


def test_what_a_dying_trainer_still_got_through_counts(kafka: KafkaSettings) -> None:
    """Entries that reach the broker between the successor's reading and its start belong to the story."""
    old = journal(kafka)
    old.begin(0, {})
    new = journal(kafka)
    old.step(1, (), seed=1, learning_rate=0.1, loss={})
    old.flush()
    new.begin(0, {})
    assert [step.step for step in new.story(0).steps] == [1]
    new.step(2, (), seed=2, learning_rate=0.1, loss={})
    new.flush()


def test_two_that_begin_at_once_get_different_epochs(kafka: KafkaSettings) -> None:
    one, two = journal(kafka), journal(kafka)
    one.begin(0, {})
    two.begin(0, {})
    assert two.epoch > one.epoch
