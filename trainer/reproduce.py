"""Makes published versions again from a checkpoint or the seed, the journal and the log, and compares SHA-256.

It only reads: broker, weights store and the trainer's folder stay as they are, and a live trainer may go on beside
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError
from onerec.kafka import admin
from onerec.model import backend
from onerec.settings import Settings
from onerec.weights.errors import StoreUnreachableError, VersionMissingError
from onerec.weights.shelf import Shelf
from onerec.weights.signature import verifier_of
from onerec.weights.store import WeightsStore
from onerec.weights.tensors import digest
from schemas.records import VersionStatus
from schemas.topics import MODEL_VERSIONS, TRAINER_JOURNAL
from trainer import environment
from trainer.environment import settings_of
from trainer.intake import read_topic
from trainer.journal import PARTITION, READ_TIMEOUT_S, read_journal
from trainer.lineage import Lineage, lineages
from trainer.publish import cast
from trainer.ranks import Ranks
from trainer.rebuild import Ground, OnProgress, checkpoint_before, quiet, same_losses, seed_again
from trainer.replay import steps_again
from trainer.service import checkpoints_of, model_config
from trainer.verdict import Distance, Reproduced, Reproduction


def reproduce(
    settings: Settings,
    versions: Sequence[int] | None,
    *,
    from_seed: bool = False,
    on_progress: OnProgress = quiet,
    ranks: Ranks | None = None,
) -> Reproduction:
    """Make `versions` again, all that the journal names for None, those of one seed in a single pass.

    Begins at the newest checkpoint from before the first of them, with `from_seed` or without such a checkpoint at
    the seed. Steps are executed with the settings and threads of the trainer that made them, in as many parts as it
    had ranks; the parts are computed by `ranks`, in this process one after the other.

    Raises SettingsError for a version that the journal does not name or one of another preset,
    DependencyMissingError for no broker, topic or journal, CheckFailedError where journal or log are not whole.
    """
    found = _read(settings)
    wanted = _by_lineage(found, versions)
    known, config, checkpoints = announced(settings), model_config(settings), checkpoints_of(settings)
    threads, kernels = torch.get_num_threads(), backend.chosen()
    made: list[Reproduced] = []
    try:
        environment.make_deterministic(threads)
        for lineage, numbers in wanted:
            one = _Pass(settings, lineage, numbers, known, ranks)
            steps = range(one.first, one.last + 1)
            ground = (
                None if from_seed else checkpoint_before(settings, config, checkpoints, lineage, steps, ranks=ranks)
            )
            if ground is None:
                ground = seed_again(settings, config, lineage, steps.stop, on_progress=on_progress, ranks=ranks)
            made += _made(one, ground, on_progress)
    finally:
        torch.set_num_threads(threads)
        backend.use(kernels)
    return Reproduction(tuple(made))


def announced(settings: Settings) -> dict[int, str]:
    """SHA-256 of each version on model-versions, which is compacted, and of each manifest that the store has."""
    shelf, found = Shelf(settings.store.uri, verifier=verifier_of(settings.store)), dict[int, str]()
    for version in shelf.versions():
        try:
            found[version] = shelf.manifest(version).sha256
        except (VersionMissingError, CheckFailedError):  # collected meanwhile, or torn: the audit's to tell
            continue
    begins = admin.beginning_offsets(settings.kafka, MODEL_VERSIONS)
    for received in read_topic(settings.kafka, MODEL_VERSIONS, begins, READ_TIMEOUT_S).records:
        record = received.record
        if record.model == settings.model.name and record.status is VersionStatus.PUBLISHED:
            found[record.version] = record.sha256
    return found


def _read(settings: Settings) -> list[Lineage]:
    kafka, model = settings.kafka, settings.model.name
    begin = admin.beginning_offsets(kafka, TRAINER_JOURNAL)[PARTITION]
    found = lineages(read_journal(kafka, model, start=begin, timeout_s=READ_TIMEOUT_S))
    if not found:
        raise DependencyMissingError(
            f"Topic {TRAINER_JOURNAL.name} has no entry of model {model}.",
            "Point kafka.bootstrap_servers and model.name at the trainer whose versions are to be reproduced.",
        )
    return found


def _by_lineage(found: Sequence[Lineage], versions: Sequence[int] | None) -> list[tuple[Lineage, list[int]]]:
    """Which versions each seed leads to, ascending."""
    published = [lineage.published() for lineage in found]
    owner = {version: place for place, of_one in enumerate(published) for version in of_one}
    wanted = sorted(owner) if versions is None else sorted(set(versions))
    unknown = [version for version in wanted if version not in owner]
    if unknown or not wanted:
        asked = _numbers(unknown) if unknown else "any version"
        named = f", but {min(owner)} to {max(owner)}" if owner else ""
        raise SettingsError(f"The journal does not name {asked}{named}.", "See `onerec versions list`.")
    parts = [[version for version in wanted if owner[version] == place] for place in range(len(found))]
    return [(lineage, part) for lineage, part in zip(found, parts, strict=True) if part]


def _numbers(versions: Sequence[int]) -> str:
    return ("version " if len(versions) == 1 else "versions ") + ", ".join(map(str, versions[:5]))


class _Pass:
    """One pass over the steps of one seed, that stops at the versions wanted."""

    def __init__(
        self,
        settings: Settings,
        lineage: Lineage,
        versions: Sequence[int],
        known: Mapping[int, str],
        ranks: Ranks | None,
    ) -> None:
        self._settings, self._lineage, self._known = settings, lineage, known
        self._targets = [lineage.published()[version][1] for version in versions]
        self.versions = set(versions)
        self._here = environment.describe(settings) | environment.of_place(settings, ranks)
        self._store = WeightsStore(settings.store.uri, verifier=verifier_of(settings.store))
        self.last = max(entry.step for entry in self._targets)
        self.first = min(entry.step for entry in self._targets)

    def run(self, ground: Ground, on_progress: OnProgress) -> Iterator[Reproduced]:
        """Execute the steps; a version as soon as its step is there."""
        differences = environment.differences(ground.environment, self._here)
        first_difference, state = ground.first_difference, ground.state
        yield from self._versions(ground, 0, differences, first_difference)
        for count, (entry, result) in enumerate(
            steps_again(state, ground.story, ground.supply, ground.environment), start=1
        ):
            of_step = ground.story.starts.get(entry.epoch)
            if of_step is not None:
                differences = differences | environment.differences(of_step, self._here)
            same = result.learning_rate == entry.learning_rate and same_losses(result.losses, entry.loss)
            if first_difference is None and not same:
                first_difference = entry.step
            on_progress(state.step, self.last)
            yield from self._versions(ground, count, differences, first_difference)

    def _versions(
        self,
        ground: Ground,
        executed: int,
        differences: Mapping[str, tuple[str, str]],
        first_difference: int | None,
    ) -> Iterator[Reproduced]:
        for entry in self._targets:
            if entry.step != ground.state.step:
                continue
            version, expected = entry.version or 0, entry.weights_sha256 or ""
            of_trainer = settings_of(ground.story.starts.get(entry.epoch) or ground.environment)
            tensors = cast(ground.state.weights(), of_trainer.publish_dtype)
            sha = digest(tensors)
            yield Reproduced(
                version=version,
                step=entry.step,
                base=ground.name,
                steps=ground.executed + executed,
                expected_sha256=expected,
                announced_sha256=self._known.get(version),
                made_sha256=sha,
                distance=None if sha == expected else self._distance(version, tensors),
                differences=differences,
                first_difference=first_difference,
            )

    def _distance(self, version: int, made: Mapping[str, Tensor]) -> Distance | None:
        """None where the store no longer has the version, or another model."""
        try:
            published = self._store.read(version).tensors
            return Distance.between(made, published)
        except (VersionMissingError, CheckFailedError, StoreUnreachableError, KeyError):
            return None


def _made(one: _Pass, ground: Ground, on_progress: OnProgress) -> list[Reproduced]:
    try:
        made = list(one.run(ground, on_progress))
    except CheckFailedError as error:
        raise CheckFailedError(error.problem, "Restore the topics, or reproduce from a later checkpoint.") from error
    finally:
        ground.supply.close()
    if missing := sorted(one.versions - {each.version for each in made}):
        raise CheckFailedError(
            f"The journal has no step that leads to {_numbers(missing)}.", "Restore topic trainer-journal."
        )
    return made
