"""The continuous trainer: take what came, learn, publish, keep a checkpoint; until asked to stop."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from onerec import clock
from onerec.degraded import Lack
from onerec.errors import DependencyMissingError
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.registry import codec
from onerec.service import Stop
from onerec.settings import Settings
from onerec.tracing import TurnTrace
from schemas.topics import SESSIONS
from trainer import metrics
from trainer.admission import Refusal
from trainer.checkpoint import Checkpoints, Surroundings
from trainer.guard import ClusterWatch, SuccessorWatch
from trainer.journal import Journal
from trainer.publish import Publisher
from trainer.state import TrainState
from trainer.step import StepResult, apply_step
from trainer.supply import Supplied, Supply

LOG = logging.getLogger(__name__)
LAG_INTERVAL_S = 1.0


@dataclass(slots=True)
class Trainer:
    """The parts of a running trainer; `run` is the loop over them."""

    settings: Settings
    cluster_id: str
    environment: dict[str, str]
    state: TrainState
    supply: Supply
    journal: Journal
    publisher: Publisher
    checkpoints: Checkpoints
    dead_letters: DeadLetters
    _disk: Lack = field(default_factory=lambda: Lack("trainer", "checkpoints"), init=False)
    _checkpoint_at_s: float = field(default=0.0, init=False)
    _lag_at_s: float = field(default=0.0, init=False)

    def run(self, stop: Stop) -> None:
        """Train until asked to stop; ends with a version and a checkpoint of the last step."""
        trace = TurnTrace("trainer")
        watch, successor = ClusterWatch(self.cluster_id), SuccessorWatch(self.journal)
        self._checkpoint_at_s = time.monotonic() + self.settings.trainer.checkpoint_interval_s
        while not stop.is_set():
            supplied = self.supply.live(
                waiting=lambda: not stop.is_set(),
                version_due_s=self.publisher.due_s,
                has_learned=bool(self.publisher.learned.steps),
            )
            if supplied is not None:
                with trace.turn("step"):
                    self.learn(supplied)
            else:
                successor.look()
            if self.publisher.due():
                self.publish()
            if time.monotonic() >= self._checkpoint_at_s:
                self.checkpoint()
            watch.look(self.supply.intake)
            self._observe_lag()
        trace.close()
        self.checkpoint()

    def learn(self, supplied: Supplied) -> StepResult:
        """Execute a step and journal it."""
        started_s = time.monotonic()
        if supplied.read_s is not None:
            metrics.BATCH_WAIT_SECONDS.observe(started_s - supplied.read_s)
        result = apply_step(self.state, supplied.step_input)
        self._refuse_all(supplied, result)
        self.journal.step(
            result.step,
            result.ranges,
            seed=result.seed,
            learning_rate=result.learning_rate,
            loss=result.losses,
            refused=result.refused,
        )
        self.publisher.learned.add(result)
        metrics.observe_step(self.state, result, time.monotonic() - started_s)
        if result.refused is not None:
            LOG.warning("step %d left the weights as they were: %s", result.step, result.refused)
        return result

    def publish(self) -> None:
        """Make the state the next version."""
        self.publisher.publish(self.state, self.supply.catalogue.codebook_version)

    def checkpoint(self, *, for_good: bool = False) -> None:
        """Keep the state. It is a published one, so that a successor can build deltas on it.

        A disk that does not take it is no reason to stop: the journal leads from the one before to here. The first one,
        which is kept `for_good`, has none before it: raises DependencyMissingError.
        """
        if self.publisher.learned.steps:
            self.publish()
        self.journal.flush()
        started_s = time.monotonic()
        surroundings = Surroundings(
            model=self.settings.model.name,
            cluster_id=self.cluster_id,
            journal_offset=self.journal.next_offset,
            codebook_version=self.supply.catalogue.codebook_version,
            environment=self.environment,
        )
        try:
            self.checkpoints.save(self.state, surroundings, for_good=for_good)
        except OSError as error:
            metrics.CHECKPOINT_FAILURES.inc()
            sentence = f"No checkpoint of step {self.state.step} in {self.checkpoints.directory}: {error}."
            remedy = "Make room there, or set store.state_dir."
            if for_good:
                raise DependencyMissingError(sentence, f"{remedy} The seed is trained again.") from error
            self._disk.missing(f"{sentence} {remedy} Nothing is lost: the journal leads on from the one before.")
        else:
            self._disk.there()
        metrics.CHECKPOINT_SECONDS.observe(time.monotonic() - started_s)
        self._checkpoint_at_s = time.monotonic() + self.settings.trainer.checkpoint_interval_s

    def close(self) -> None:
        """Leave the broker."""
        self.supply.close()

    def _refuse_all(self, supplied: Supplied, result: StepResult) -> None:
        """Put what the step could not use to dead-letters, before the journal says that it was consumed.

        A successor executes a journalled step again, but refuses nothing again.
        """
        refusals = (*supplied.refusals, *result.refusals)
        if supplied.bad or refusals:
            for bad in supplied.bad:
                self.dead_letters.refuse_message(bad.message, bad.reason, bad.detail)
            for refusal in refusals:
                self._refuse(refusal)
            self.dead_letters.flush()

    def _refuse(self, refusal: Refusal) -> None:
        received = refusal.received
        self.dead_letters.refuse(
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
            timestamp_ms=received.timestamp_ms,
            key=received.key,
            value=codec(self.settings.kafka, received.topic).encode(received.record),
            reason=refusal.reason,
            detail=refusal.detail,
        )

    def _observe_lag(self) -> None:
        now_s = time.monotonic()
        if now_s < self._lag_at_s:
            return
        self._lag_at_s = now_s + LAG_INTERVAL_S
        metrics.LAG_EVENTS.set(self.supply.intake.lag())
        oldest = self.supply.intake.oldest(SESSIONS)
        produced_ms = max((item.produced_ms for item in oldest.record.items), default=0) if oldest else 0
        metrics.LAG_SECONDS.set(max(0.0, (clock.now_ms() - produced_ms) / 1000.0) if produced_ms else 0.0)
