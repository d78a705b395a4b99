"""A version is announced when the journal leads to it, and only then: whoever can read the one can read the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from schemas.records import JournalKind, ModelVersion
from schemas.topics import MODEL_VERSIONS, PREFERENCES, SESSIONS, TRAINER_JOURNAL
from tests.recovery.bus import ALL, Fate
from tests.recovery.topics import records
from tests.recovery.trainer_on_bus import TrainerSystem
from trainer.journal import read_journal, read_story

System = Callable[..., TrainerSystem]
LEARNED = (SESSIONS.name, PREFERENCES.name)


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> TrainerSystem:
        made[0] += 1
        return TrainerSystem(monkeypatch, memory_path / str(made[0]), **arguments)

    return make


@pytest.mark.parametrize("keeps_in_flight", [0, ALL])
def test_as_soon_as_an_announcement_can_be_read_the_journal_leads_to_it(system: System, keeps_in_flight: int) -> None:
    running = system(keeps_in_flight=keeps_in_flight)
    seen: list[int] = []

    def look(step: str) -> None:
        for version in versions(running)[len(seen) :]:
            check(running, version, f"before {step}")
            seen.append(version.version)

    running.bus.before_step = look
    running.live()
    look("the end")

    assert len(seen) >= 3
    assert seen == list(range(1, len(seen) + 1))


def check(running: TrainerSystem, version: ModelVersion, when: str) -> None:
    """A fresh reader of the journal finds the version, every step before it, and all that it has learned from."""
    story = read_story(read_journal(running.kafka, version.model, start=0, timeout_s=60), after_step=0)
    published = story.publishes[version.step]
    assert (published.version, published.weights_sha256) == (version.version, version.sha256), when
    steps = story.steps[: version.step]
    assert [entry.step for entry in steps] == list(range(1, version.step + 1)), when
    consumed = {(r.topic, r.partition): r.next_offset for entry in steps for r in entry.ranges if r.topic in LEARNED}
    learned = {(o.topic, o.partition): o.next_offset for o in version.offsets if o.topic in LEARNED and o.next_offset}
    assert consumed == learned, when


def versions(running: TrainerSystem) -> list[ModelVersion]:
    """What a committed reader finds."""
    return records(running.bus, running.kafka, MODEL_VERSIONS)


def test_a_version_that_the_journal_does_not_take_is_not_announced(system: System) -> None:
    calm = system()
    calm.live()
    journal = clients.topic_name(calm.kafka, TRAINER_JOURNAL)
    entries = records(calm.bus, calm.kafka, TRAINER_JOURNAL)
    delivered = [step for step, name in enumerate(calm.bus.steps) if name == f"deliver to {journal}"]
    publishes = [step for step, entry in zip(delivered, entries, strict=True) if entry.kind is JournalKind.PUBLISH]
    assert len(publishes) >= 3

    for number, step in enumerate(publishes):
        troubled = system()

        def refuse(_: str, troubled: TrainerSystem = troubled, step: int = step) -> None:
            if len(troubled.bus.steps) == step:
                troubled.bus.refuses.add(journal)

        troubled.bus.before_step = refuse
        with pytest.raises(DependencyMissingError):
            troubled.live()
        assert [version.version for version in versions(troubled)] == list(range(1, number + 1))
        assert not troubled.bus.open, "none was begun"
        recover(troubled, calm)


def test_an_announcement_that_is_aborted_cannot_be_read(system: System) -> None:
    calm = system()
    calm.live()
    commits = [step for step, name in enumerate(calm.bus.steps) if name == "commit"]
    assert len(commits) >= 3

    for number, step in enumerate(commits):
        troubled = system(patience_s=0.2)
        troubled.bus.timeouts = dict.fromkeys(range(step, step + 10_000), Fate.NEVER)
        with pytest.raises(DependencyMissingError):
            troubled.live()
        assert [version.version for version in versions(troubled)] == list(range(1, number + 1))
        recover(troubled, calm)
        states = [entry.state for entry in troubled.bus.log((clients.topic_name(calm.kafka, MODEL_VERSIONS), 0))]
        assert states.count("aborted") == 1, "its successor ended it, and announced the version anew"


def recover(troubled: TrainerSystem, calm: TrainerSystem) -> None:
    """The next trainer, with a broker that works, comes to where the calm one came."""
    troubled.bus.before_step = None
    troubled.bus.refuses.clear()
    troubled.bus.timeouts = {}
    troubled.live()
    assert troubled.outcome() == calm.outcome()
    troubled.check_versions()
