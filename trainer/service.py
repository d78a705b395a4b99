"""Starts the trainer: from its checkpoint and the journal, or from nothing with a seed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onerec.device import device_of
from onerec.errors import SettingsError
from onerec.kafka import admin
from onerec.kafka.access import require_rights
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.writer import RecordWriter
from onerec.model.presets import ModelConfig, preset
from onerec.service import Stop
from onerec.settings import Settings
from onerec.weights.signature import signer_of
from onerec.weights.store import WeightsStore
from trainer import environment, kernels, metrics
from trainer.announcement import Announcer
from trainer.budget import budget_of
from trainer.checkpoint import Checkpoints, Surroundings
from trainer.guard import check_log, first_offsets
from trainer.journal import Journal
from trainer.loop import Trainer
from trainer.past import SEED_DATA, digest_of, read_past, tokens_range
from trainer.publish import Publisher
from trainer.ranks import Ranks, joined
from trainer.replay import execute_again
from trainer.samples import cut
from trainer.seed import SeedStep, train_seed
from trainer.spread import follow, spread
from trainer.state import TrainState
from trainer.supply import Supply

LOG = logging.getLogger(__name__)


def run_trainer(settings: Settings, stop: Stop, *, only_seed: bool = False) -> None:
    """Resume or seed, then train on the stream until asked to stop; as a rank that is not the first, help it."""
    with joined(settings) as ranks:
        if ranks is None or ranks.rank == 0:
            _lead(settings, stop, ranks, only_seed=only_seed)
        else:
            follow(ranks)


def _lead(settings: Settings, stop: Stop, ranks: Ranks | None, *, only_seed: bool) -> None:
    trainer = start(settings, stop, ranks)
    if trainer is None:
        return
    try:
        stop.ready()
        LOG.info("training on from step %d, version %d", trainer.state.step, trainer.state.version)
        if not only_seed:
            trainer.run(stop)
    finally:
        trainer.close()


def start(settings: Settings, stop: Stop, ranks: Ranks | None = None) -> Trainer | None:
    """The trainer in the state that journal and checkpoint describe; None where asked to stop before it is there.

    The state is on all `ranks` then. Raises DependencyMissingError for no broker or topic or a rank that is lost,
    SettingsError for an unknown preset, a checkpoint of another one or a device that is not there, CheckFailedError
    for a log that is not the checkpoint's.
    """
    config = model_config(settings)
    device = device_of(settings.trainer.device, "trainer.device") if ranks is None else ranks.device
    environment.make_deterministic(settings.trainer.threads)
    kernels.choose(settings.trainer, device, sharded=ranks is not None and ranks.sharding == "fsdp")
    metrics.tell_kernels(kernels.name())
    admin.wait_for_broker(settings.kafka, settings.kafka.broker_patience_s)
    require_rights(settings, "trainer")
    checkpoints = checkpoints_of(settings)
    found = checkpoints.load(config, settings.trainer)
    if found is None:
        return _from_seed(settings, config, checkpoints, stop, ranks=ranks)
    return _from_checkpoint(settings, checkpoints, stop, *found, ranks=ranks)


def _from_checkpoint(
    settings: Settings,
    checkpoints: Checkpoints,
    stop: Stop,
    state: TrainState,
    surroundings: Surroundings,
    *,
    ranks: Ranks | None,
) -> Trainer:
    check_log(settings.kafka, state, surroundings)
    state.offsets = first_offsets(settings.kafka) | state.offsets
    journal = Journal(
        settings.kafka, RecordWriter(settings.kafka), settings.model.name, start=surroundings.journal_offset
    )
    with _assembled(settings, checkpoints, stop, state, journal, ranks=ranks) as trainer:
        steps = journal.story(state.step).steps
        journal.begin(steps[-1].step if steps else state.step, trainer.environment)
        trainer.publisher.take_over()
        story = journal.story(state.step)
        spread(state, ranks, settings.trainer)
        execute_again(state, story, trainer.supply, trainer.publisher, surroundings.environment)
        if state.version == 0:
            _first_version(trainer, story.last_version)
    return trainer


def _from_seed(
    settings: Settings, config: ModelConfig, checkpoints: Checkpoints, stop: Stop, *, ranks: Ranks | None
) -> Trainer | None:
    journal = Journal(settings.kafka, RecordWriter(settings.kafka), settings.model.name)
    state = TrainState.new(config, settings.trainer)
    state.offsets = first_offsets(settings.kafka)
    with _assembled(settings, checkpoints, stop, state, journal, ranks=ranks) as trainer:
        past = read_past(settings.kafka, trainer.supply, settings.trainer.seed, stop)
        if past is None:
            return None
        tokens = tokens_range(trainer.supply)
        of_the_seed = {SEED_DATA: digest_of(past.histories, trainer.supply.catalogue)}
        journal.begin(0, trainer.environment | of_the_seed, (*past.ranges, tokens))
        trainer.publisher.take_over()
        samples = cut(past.histories, trainer.supply.catalogue, config)
        spread(state, ranks, settings.trainer)
        train_seed(
            state,
            samples,
            trainer.supply.catalogue,
            budget_of(settings.trainer.seed),
            on_step=_journalling(journal),
            stopped=stop.is_set,
        )
        if stop.is_set():
            return None
        state.offsets[tokens.topic, tokens.partition] = tokens.next_offset
        trainer.checkpoint(for_good=True)
        _first_version(trainer, journal.story(None).last_version)
    return trainer


def _journalling(journal: Journal) -> Callable[[SeedStep], None]:
    def on_step(step: SeedStep) -> None:
        journal.step(step.step, (), seed=step.seed, learning_rate=step.learning_rate, loss=step.losses)

    return on_step


def _first_version(trainer: Trainer, last_version: int) -> None:
    """The seed's version: 1, or the next where an earlier run on the same log has published some."""
    trainer.state.version = max(last_version, trainer.publisher.announced)
    trainer.publish()


@contextmanager
def _assembled(
    settings: Settings,
    checkpoints: Checkpoints,
    stop: Stop,
    state: TrainState,
    journal: Journal,
    *,
    ranks: Ranks | None,
) -> Iterator[Trainer]:
    """A trainer that leaves the broker again where it does not come to its start."""
    trainer = Trainer(
        settings=settings,
        cluster_id=admin.cluster_id(settings.kafka),
        environment=environment.describe(settings) | environment.of_place(settings, ranks),
        state=state,
        supply=Supply(settings.kafka, state.config, settings.trainer, state.offsets),
        journal=journal,
        publisher=Publisher(
            settings,
            WeightsStore(settings.store.uri, signer=signer_of(settings.store)),
            journal,
            Announcer(settings.kafka, settings.model.name, journal.check),
            wait=stop.wait,
        ),
        checkpoints=checkpoints,
        dead_letters=DeadLetters(settings.kafka, "trainer"),
    )
    try:
        yield trainer
    except Exception:
        trainer.close()
        raise


def checkpoints_of(settings: Settings) -> Checkpoints:
    """Where the settings' trainer keeps its state."""
    return Checkpoints(settings.store.state_dir / "trainer" / settings.model.name, settings.trainer.keep_checkpoints)


def model_config(settings: Settings) -> ModelConfig:
    """The preset's sizes. Raises SettingsError for an unknown one."""
    try:
        return preset(settings.model.configuration)
    except ValueError as error:
        raise SettingsError(str(error), "Mend model.preset.") from error
