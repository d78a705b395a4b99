"""SIGKILL at any time changes nothing: same weights, each session once, version numbers without a gap."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from onerec.kafka import admin
from onerec.settings import KafkaSettings
from onerec.weights.tensors import digest
from schemas.records import JournalEntry, JournalKind, OffsetRange
from schemas.topics import PREFERENCES, SESSIONS, TRAINER_JOURNAL
from tests.kafka.reading import followed
from tests.trainer import toy
from tests.trainer.world import World
from trainer import kernels
from trainer.checkpoint import load_checkpoint
from trainer.environment import make_deterministic
from trainer.guard import first_offsets
from trainer.journal import read_journal, read_story
from trainer.publish import cast
from trainer.reproduce import reproduce
from trainer.step import apply_step
from trainer.supply import Supply

KILLS = 4
PER_WAVE = 4
MODEL = "onerec"


class Feed(threading.Thread):
    """Sessions and pairs, some of them twice, until `stop` is set."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.stop = threading.Event()
        self.sessions = self.pairs = 0
        self._world = world

    def run(self) -> None:
        while not self.stop.wait(0.05):
            wave = [
                toy.session(self.sessions + n, [(self.sessions + 7 * n) % 50, (self.sessions + n) % 50], labels=n % 3)
                for n in range(PER_WAVE)
            ]
            self._world.publish_sessions([*wave, wave[0]])
            self._world.publish_pairs([toy.pair(self.pairs, [1, 2, 3], [4, 5, self.pairs % 50], (-12.0, -13.0))])
            self.sessions += PER_WAVE
            self.pairs += 1


def killed_often(world: World, chance: random.Random) -> Feed:
    """Run the trainer, killing it again and again while it learns; the last one ends in peace."""
    feed = Feed(world)
    feed.start()
    try:
        for kill in range(KILLS):
            # Where other work makes steps slow there is one to a checkpoint: then nothing would be executed again.
            world.trainer["checkpoint_interval_s"] = 1.5 if kill % 2 else 3_600.0
            steps = len(world.journal())
            process = world.start()
            with followed(world.kafka, TRAINER_JOURNAL) as journal:
                world.wait(lambda before=steps: len(journal()) > before + 5, process)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.8))  # not to wait for anything: the kill may come anywhere
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    finally:
        feed.stop.set()
        feed.join()
    there = sum(sum(admin.end_offsets(world.kafka, topic).values()) for topic in (SESSIONS, PREFERENCES))
    with world.running() as process, followed(world.kafka, TRAINER_JOURNAL) as journal:
        world.wait(lambda: starts(journal()) == KILLS + 1 and records_of(journal()) == there, process)
    return feed


def starts(journal: list[JournalEntry]) -> int:
    return sum(entry.kind is JournalKind.START for entry in journal)


def records_of(journal: list[JournalEntry]) -> int:
    """How many messages of the stream the valid steps have consumed."""
    steps = read_story(list(enumerate(journal)), after_step=0).steps
    return sum(r.records for step in steps for r in step.ranges if r.topic in (SESSIONS.name, PREFERENCES.name))


def story(world: World) -> list[JournalEntry]:
    """The valid steps that consumed the stream."""
    entries = read_journal(world.kafka, MODEL, start=0, timeout_s=60)
    return [step for step in read_story(entries, after_step=0).steps if step.ranges]


def consumed(world: World, topic: str) -> list[OffsetRange]:
    return [r for step in story(world) for r in step.ranges if r.topic == topic]


def weights_without_interruption(world: World) -> tuple[str, dict[int, str]]:
    """Digest at the end, and of each version, of one run from the seed's checkpoint over the journal's steps."""
    make_deterministic(1)
    folder = next((world.folder / "state" / "trainer" / MODEL).glob("*-kept"))
    state, surroundings = load_checkpoint(folder, toy.TINY, world.settings.trainer)
    kernels.use_recorded(surroundings.environment)
    supply = Supply(world.kafka, toy.TINY, world.settings.trainer, first_offsets(world.kafka) | state.offsets)
    told = read_story(read_journal(world.kafka, MODEL, start=0, timeout_s=60), after_step=0)
    publishes = {step: entry.version or 0 for step, entry in told.publishes.items()}
    versions = {publishes[state.step]: digest(cast(state.weights(), "bfloat16"))}
    for step in story(world):
        apply_step(state, supply.again(step.ranges).step_input)
        if state.step in publishes:
            versions[publishes[state.step]] = digest(cast(state.weights(), "bfloat16"))
    supply.close()
    return digest(state.weights()), versions


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_often_and_still_bit_identical(kafka: KafkaSettings, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, {"batch": 8})
    world.publish_catalogue()
    world.publish_histories()
    feed = killed_often(world, random.Random(5))

    entries = world.journal()
    assert [entry.epoch for entry in entries if entry.kind is JournalKind.START] == list(range(1, KILLS + 2))
    repeated = [int(found) for found in re.findall(r"executed (\d+) steps of the journal again", world.log())]
    assert sum(repeated) > 0, "no kill made a step to be executed again: the test has tested nothing"

    for topic, records in ((SESSIONS.name, feed.sessions), (PREFERENCES.name, feed.pairs)):
        ranges = consumed(world, topic)
        assert sum(r.applied for r in ranges) == records, "each is applied once, however often it was sent"
        for partition in (0, 1):
            mine = [r for r in ranges if r.partition == partition]
            assert mine[0].first_offset == 0
            assert all(a.next_offset == b.first_offset for a, b in pairwise(mine))

    published = {e.version: e.weights_sha256 for e in entries if e.kind is JournalKind.PUBLISH}
    assert list(published) == list(range(1, len(published) + 1))
    assert [v.version for v in world.versions()] == list(published)
    assert {v.version: v.sha256 for v in world.versions()} == published

    end, versions = weights_without_interruption(world)
    assert versions == published
    again = reproduce(world.settings, None, from_seed=True)
    assert {each.version: each.made_sha256 for each in again.versions} == published
    assert again.identical
    newest = max((world.folder / "state" / "trainer" / MODEL).glob("step-*"))
    survivor, _ = load_checkpoint(newest, toy.TINY, world.settings.trainer)
    assert digest(survivor.weights()) == end
