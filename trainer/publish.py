"""Publishing: the journal first, then the weights store, then the announcement on model-versions.

In this order a crash between two of them loses nothing: what the journal says was published is written and
announced again at resume, with the same bits. A trainer that has been replaced notices it at the journal, before
it touches the store; where it notices it later, the bits that it writes are still those of the journal, and the
broker does not take its announcement. So a version's number never stands for two different weights.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from onerec.degraded import Lack
from onerec.settings import Settings
from onerec.weights.directives import collect
from onerec.weights.errors import IncompatibleWeightsError, StoreUnreachableError, VersionMissingError
from onerec.weights.record import facts_of
from onerec.weights.store import Artifact, WeightsStore
from onerec.weights.tensors import digest
from schemas.packed import pack_longs
from schemas.records import JournalEntry, ModelVersion, TopicOffset, VersionKind, VersionStatus
from trainer import metrics
from trainer.announcement import Announcer
from trainer.journal import Journal
from trainer.state import TrainState
from trainer.step import StepResult

LOG = logging.getLogger(__name__)
STORE_RETRY_S = 1.0
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def cast(weights: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Copies in the published dtype; integers stay as they are."""
    wanted = DTYPES[dtype]
    return {
        name: tensor.detach().to(wanted if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in weights.items()
    }


@dataclasses.dataclass(slots=True)
class Learned:
    """What steps have learned since the version before."""

    steps: int = 0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    sums: Counter[str] = dataclasses.field(default_factory=Counter)
    produced_ms: list[int] = dataclasses.field(default_factory=list)
    since_s: float | None = None
    """When the first of them was done, on the monotonic clock."""

    def add(self, result: StepResult) -> None:
        """Count a step, unless it left the weights as they were."""
        if result.refused is not None:
            return
        self.steps += 1
        self.since_s = time.monotonic() if self.since_s is None else self.since_s
        self.counts.update({"sessions": result.sessions, "pairs": result.pairs})
        for name, value in result.losses.items():
            self.sums[name] += value  # type: ignore[assignment]  # a Counter of floats
            self.counts[f"steps:{name}"] += 1
        self.produced_ms.extend(result.produced_ms)

    def metrics(self) -> dict[str, float]:
        """Mean of each loss over the steps that had it, and counts."""
        means = {name: total / self.counts[f"steps:{name}"] for name, total in self.sums.items()}
        counts = {name: float(self.counts[name]) for name in ("sessions", "pairs")}
        return {**means, **counts, "steps": float(self.steps)}


class Publisher:
    """Makes versions of the state. The step loop waits while it works."""

    def __init__(
        self,
        settings: Settings,
        store: WeightsStore,
        journal: Journal,
        announcer: Announcer,
        *,
        wait: Callable[[float], bool],
    ) -> None:
        """`wait` sleeps and says whether to give up. Call `take_over` before anything is published."""
        self._settings = settings
        self._store = store
        self._journal = journal
        self._announcer = announcer
        self.announced = 0
        """The newest version on model-versions."""
        self._wait = wait
        self._reach = Lack("trainer", "weights store")
        self._parent: tuple[int, dict[str, Tensor]] | None = None
        self._last_s = float("-inf")
        self.learned = Learned()

    def take_over(self) -> None:
        """The journal's new epoch has begun: the trainer of the one before cannot announce anything any more."""
        self.announced = self._announcer.take_over()

    def continue_from(self, state: TrainState) -> None:
        """The state is that of its version: the next one can be a delta."""
        if state.version:
            self._parent = (state.version, cast(state.weights(), self._settings.trainer.publish_dtype))

    @property
    def due_s(self) -> float:
        """When the last version is old enough for the next, on the monotonic clock."""
        return self._last_s + self._settings.trainer.publish_interval_s

    def due(self) -> bool:
        """Whether there is something new and the last version is old enough."""
        return bool(self.learned.steps) and time.monotonic() >= self.due_s

    def publish(self, state: TrainState, codebook_version: int) -> None:
        """Make the state the next version."""
        started_s = time.monotonic()
        if self.learned.since_s is not None:
            metrics.PUBLISH_WAIT_SECONDS.observe(started_s - self.learned.since_s)
        version = state.version + 1
        tensors = cast(state.weights(), self._settings.trainer.publish_dtype)
        self._journal.publish(state.step, version, digest(tensors))
        self._journal.flush()
        self._announce(state, version, tensors, codebook_version)
        if version % self._settings.trainer.full_every == 0:
            collect(self._settings, self._store)
        self._last_s = time.monotonic()
        metrics.PUBLISH_SECONDS.observe(self._last_s - started_s)

    def again(self, entry: JournalEntry, state: TrainState, codebook_version: int, dtype: str) -> None:
        """At resume: the journal says that this state was published, in `dtype`.

        Announces it where a crash prevented that. Where other weights came out than the journal says, the version's
        number is not theirs: they are published under the next one.
        """
        version = entry.version or 0
        tensors = cast(state.weights(), dtype)
        different = digest(tensors) != entry.weights_sha256
        if different:
            metrics.DIFFERENT.inc()
            LOG.error(
                "executing the journal again led to other weights than those of version %d: threads, processor or "
                "libraries differ from those in the journal's start entry",
                version,
            )
        if version <= self.announced:
            self._published(state, version, tensors)
        elif different:
            state.version, self._parent = version, None
        else:
            self._announce(state, version, tensors, codebook_version)

    def _announce(self, state: TrainState, version: int, tensors: dict[str, Tensor], codebook_version: int) -> None:
        draft = self._draft(state, version, codebook_version)
        artifact, parent = self._write_patiently(version, tensors, draft)
        record = dataclasses.replace(
            draft,
            parent=parent,
            kind=VersionKind.FULL if parent is None else VersionKind.DELTA,
            uri=artifact.uri,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
        )
        self._announcer.announce(record)
        self.announced = version
        self._published(state, version, tensors)
        LOG.info("version %d (%s, %d bytes) of step %d", version, record.kind, record.size_bytes, state.step)

    def _published(self, state: TrainState, version: int, tensors: dict[str, Tensor]) -> None:
        state.version = version
        self._parent = (version, tensors)
        self.learned = Learned()
        metrics.VERSION.set(version)

    def _write_patiently(
        self, version: int, tensors: dict[str, Tensor], draft: ModelVersion
    ) -> tuple[Artifact, int | None]:
        """Write as soon as the store can be reached. The stream waits on the broker meanwhile, nothing is lost."""
        while True:
            try:
                written = self._write(version, tensors, draft)
            except StoreUnreachableError as error:
                metrics.STORE_FAILURES.inc()
                self._reach.missing(f"version {version} waits to be stored, and training with it: {error}")
                if self._wait(STORE_RETRY_S):
                    raise
                self._journal.check()
            else:
                self._reach.there()
                return written

    def _write(self, version: int, tensors: dict[str, Tensor], draft: ModelVersion) -> tuple[Artifact, int | None]:
        """A delta, or a full version each `full_every` and where the store cannot build on the parent."""
        facts = facts_of(draft)
        if self._parent is not None:
            self._store.folder.require()  # a trainer that resumes does not make the store of its predecessor anew
        if self._parent is not None and version % self._settings.trainer.full_every:
            parent, parent_tensors = self._parent
            try:
                return self._store.write_delta(version, parent, parent_tensors, tensors, facts), parent
            except (IncompatibleWeightsError, VersionMissingError) as error:
                LOG.warning("a full version instead of a delta: %s", error)
        return self._store.write_full(version, tensors, facts), None

    def _draft(self, state: TrainState, version: int, codebook_version: int) -> ModelVersion:
        return ModelVersion(
            model=self._settings.model.name,
            version=version,
            step=state.step,
            kind=VersionKind.FULL,
            uri="",
            sha256="",
            size_bytes=0,
            offsets=tuple(
                TopicOffset(topic=topic, partition=partition, next_offset=offset)
                for (topic, partition), offset in sorted(state.offsets.items())
            ),
            metrics=self.learned.metrics(),
            status=VersionStatus.PUBLISHED,
            created_ms=time.time_ns() // 1_000_000,
            learned_produced_ms=pack_longs(self.learned.produced_ms),
            preset=self._settings.model.configuration,
            codebook_version=codebook_version,
        )
