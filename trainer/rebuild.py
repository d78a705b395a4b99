"""Where a reproduction begins: at a checkpoint of the version's own past, or at its seed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from onerec.errors import CheckFailedError, SettingsError
from onerec.kafka import admin
from onerec.model.presets import ModelConfig
from onerec.settings import KafkaSettings, Settings
from schemas.records import JournalEntry, OffsetRange
from schemas.topics import HISTORIES, ITEM_TOKENS, PREFERENCES, SESSIONS, Cleanup
from trainer import kernels
from trainer.budget import Recorded
from trainer.checkpoint import Checkpoints, Surroundings, TornCheckpointError, load_checkpoint, step_of
from trainer.environment import parts_of, settings_of
from trainer.journal import Story
from trainer.lineage import Lineage
from trainer.past import SEED_DATA, digest_of, read_past_again
from trainer.ranks import Ranks
from trainer.samples import cut
from trainer.seed import SeedStep, train_seed
from trainer.spread import spread
from trainer.state import Partition, TrainState
from trainer.supply import TOKENS, Supply

LOG = logging.getLogger(__name__)
FROM_SEED = "seed"
OnProgress = Callable[[int, int], None]
"""Called with the step that is done and the last one to come."""


def quiet(step: int, last: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A state of the past, and what the journal says came after it."""

    name: str
    state: TrainState
    supply: Supply
    story: Story
    environment: Mapping[str, str]
    """Of the trainer that made the state."""
    executed: int
    """Steps executed to get here."""
    first_difference: int | None
    """The first of them whose losses are not the journal's."""


def checkpoint_before(
    settings: Settings,
    config: ModelConfig,
    checkpoints: Checkpoints,
    lineage: Lineage,
    steps: range,
    *,
    ranks: Ranks | None = None,
) -> Ground | None:
    """The newest checkpoint of the lineage from before step `steps.start`, to go on up to before `steps.stop`.

    Its state is on all `ranks` then. None where there is none. A torn one is passed over, as the trainer does.
    """
    cluster = admin.cluster_id(settings.kafka)
    for folder in reversed(checkpoints.folders()):
        if step_of(folder) >= steps.start:
            continue
        try:
            state, surroundings = load_checkpoint(folder, config, settings.trainer)
        except TornCheckpointError as error:
            LOG.warning("%s", error)
            continue
        if surroundings.cluster_id != cluster or not _of(lineage, surroundings):
            LOG.warning("the checkpoint %s is of another log or seed", folder)
            continue
        story = lineage.story_from(surroundings.journal_offset, after_step=state.step)
        story = _until(story, steps.stop)
        offsets = _first_offsets(story.steps) | state.offsets
        require_log(settings.kafka, story.steps)
        supply = Supply(settings.kafka, config, settings.trainer, offsets)
        spread(state, ranks, settings.trainer)
        return Ground(f"checkpoint of step {state.step}", state, supply, story, surroundings.environment, 0, None)
    return None


def seed_again(
    settings: Settings,
    config: ModelConfig,
    lineage: Lineage,
    stop: int,
    *,
    on_progress: OnProgress,
    ranks: Ranks | None = None,
) -> Ground:
    """The seed trained again as the journal says, on all `ranks`, to go on up to before step `stop`.

    Raises CheckFailedError where the journal or the topics no longer have what it was made from.
    """
    start = lineage.seed
    if start is None:
        raise CheckFailedError(
            "The journal no longer has the beginning of this model: the start entry that names its seed's input.",
            "Restore topic trainer-journal, or reproduce from a checkpoint.",
        )
    if start.environment.get("preset") != config.name:
        raise SettingsError(
            f"This model was made with preset {start.environment.get('preset')}, the settings say {config.name}.",
            "Mend model.preset or model.decoder.",
        )
    trainer = settings_of(start.environment)
    torch.set_num_threads(trainer.threads)
    kernels.use_recorded(start.environment)
    past = [entry for entry in lineage.story.steps if not entry.ranges]
    story = _until(_after(lineage.story, len(past)), stop)
    tokens = next(r for r in start.ranges if (r.topic, r.partition) == TOKENS)
    require_log(settings.kafka, [start, *story.steps])
    state = TrainState.new(config, trainer)
    state.offsets = _first_offsets(story.steps) | {TOKENS: tokens.next_offset}
    supply = Supply(settings.kafka, config, trainer, state.offsets)
    try:
        spread(state, ranks, settings.trainer)
        state.parts = parts_of(start.environment)
        watch = _Watch(past, lambda step: on_progress(step, stop - 1))
        _train_again(settings.kafka, state, supply, start, watch)
    except BaseException:
        supply.close()
        raise
    return Ground(FROM_SEED, state, supply, story, start.environment, state.step, watch.first_difference)


class _Watch:
    """Compares the steps of a seed with the journal's."""

    def __init__(self, entries: list[JournalEntry], on_step: Callable[[int], None]) -> None:
        self.entries = entries
        self._on_step = on_step
        self.first_difference: int | None = None

    def __call__(self, step: SeedStep) -> None:
        entry = self.entries[step.step - 1]
        same = (step.seed, step.learning_rate) == (entry.seed, entry.learning_rate)
        if self.first_difference is None and not (same and same_losses(step.losses, entry.loss)):
            self.first_difference = step.step
        self._on_step(step.step)


def _train_again(kafka: KafkaSettings, state: TrainState, supply: Supply, start: JournalEntry, watch: _Watch) -> None:
    histories = read_past_again(kafka, [r for r in start.ranges if r.topic == HISTORIES.name])
    if start.environment.get(SEED_DATA, "") not in ("", digest_of(histories, supply.catalogue)):
        raise CheckFailedError(
            "The histories or semantic ids that the seed was made from are no longer on the broker: topics histories "
            "and item-tokens keep the newest record of each key only.",
            "Reproduce from a checkpoint (without --from-seed); the seed's own is kept for good.",
        )
    shares = [entry.loss["share"] for entry in watch.entries]
    samples = cut(histories, supply.catalogue, state.config)
    train_seed(state, samples, supply.catalogue, Recorded(shares), on_step=watch)
    if state.step != len(watch.entries):
        raise CheckFailedError(
            f"The seed took {len(watch.entries)} steps and takes {state.step} now.", "Restore topic histories."
        )


def require_log(kafka: KafkaSettings, entries: Iterable[JournalEntry]) -> None:
    """Raise CheckFailedError where the broker no longer has what these entries consumed.

    What compaction has removed cannot be seen at a topic's bounds: `SEED_DATA` tells.
    """
    ranges = [r for entry in entries for r in entry.ranges]
    for topic in (SESSIONS, PREFERENCES, HISTORIES, ITEM_TOKENS):
        mine = [r for r in ranges if r.topic == topic.name]
        bounds = admin.bounds(kafka, topic) if mine else {}
        for partition in sorted({r.partition for r in mine}):
            begin, end = bounds.get(partition, (0, 0))
            first, after = _span(mine, partition)
            begin = 0 if topic.cleanup is Cleanup.COMPACT else begin
            if not begin <= first <= after <= end:
                raise CheckFailedError(
                    f"Offsets {first} to {after} of partition {partition} of topic {topic.name} are needed, the broker "
                    f"has {begin} to {end}: records were deleted, by retention or by hand.",
                    "Reproduce from a later checkpoint, restore the topic, or lengthen kafka.retention_ms.",
                )


def same_losses(made: Mapping[str, float], recorded: Mapping[str, float]) -> bool:
    """Whether all are equal; those that are not finite, by name of what they are."""
    return {name: repr(value) for name, value in made.items()} == {k: repr(v) for k, v in recorded.items()}


def _of(lineage: Lineage, surroundings: Surroundings) -> bool:
    """Whether the journal stood within the lineage when the checkpoint was made."""
    return lineage.entries[0][0] < surroundings.journal_offset <= lineage.next_offset


def _after(story: Story, count: int) -> Story:
    """The story without its first steps."""
    return dataclasses.replace(story, steps=story.steps[count:], environments=story.environments[count:])


def _until(story: Story, stop: int) -> Story:
    """The story without the steps from `stop` on."""
    count = sum(entry.step < stop for entry in story.steps)
    return dataclasses.replace(story, steps=story.steps[:count], environments=story.environments[:count])


def _first_offsets(steps: Iterable[JournalEntry]) -> dict[Partition, int]:
    """Of each partition of the stream, where the first step that reads it begins."""
    offsets: dict[Partition, int] = {}
    for entry in steps:
        for r in entry.ranges:
            if r.topic != TOKENS[0]:
                offsets.setdefault((r.topic, r.partition), r.first_offset)
    return offsets


def _span(ranges: Iterable[OffsetRange], partition: int) -> tuple[int, int]:
    """First offset and end of what was read of a partition."""
    mine = [r for r in ranges if r.partition == partition]
    return min(r.first_offset for r in mine), max(r.next_offset for r in mine)
