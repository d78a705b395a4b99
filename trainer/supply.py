"""The inputs of steps: live ones are chosen from what has come, journalled ones are made again from their ranges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.errors import CheckFailedError
from onerec.kafka import admin
from onerec.model.presets import ModelConfig
from onerec.settings import KafkaSettings, TrainerSettings
from schemas.records import OffsetRange
from schemas.topics import ITEM_TOKENS, PREFERENCES, SESSIONS
from trainer.admission import Refusal, StepInput, unknown_items
from trainer.intake import BadRecord, Intake, Taken
from trainer.state import Partition

TOKENS: Partition = (ITEM_TOKENS.name, 0)
TOPICS = (SESSIONS, PREFERENCES, ITEM_TOKENS)
POLL_S = 0.05
CATCH_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Supplied:
    """An input with what was refused before it could become one."""

    step_input: StepInput
    bad: tuple[BadRecord, ...]
    refusals: tuple[Refusal, ...]
    """Semantic ids that the catalogue does not take."""
    read_s: float | None
    """When the first of its records was read, on the monotonic clock."""


class Supply:
    """Turns the log into inputs. The catalogue of an input is that of its offset on item-tokens, no newer."""

    def __init__(
        self, kafka: KafkaSettings, config: ModelConfig, settings: TrainerSettings, offsets: Mapping[Partition, int]
    ) -> None:
        """Read on from `offsets`; the catalogue is read from its beginning to there."""
        self._settings = settings
        self._catalogue = Catalogue(config.levels, config.codes)
        self.intake = Intake(kafka, TOPICS)
        self._tokens_from = offsets.get(TOKENS, 0)
        self._refusals: list[Refusal] = []
        self._bad: list[BadRecord] = []
        self.intake.add({TOKENS: admin.beginning_offsets(kafka, ITEM_TOKENS)[TOKENS[1]]})
        self._apply_tokens(self._tokens_from)
        self._bad.clear()
        self._refusals.clear()
        self.intake.add({key: offset for key, offset in offsets.items() if key != TOKENS})

    def live(
        self, waiting: Callable[[], bool], *, version_due_s: float = math.inf, has_learned: bool = False
    ) -> Supplied | None:
        """The next input: a full batch, or what there is once a session has waited for `batch_wait_ms`.

        When a version is due, `version_due_s` on the monotonic clock, nobody waits any longer: what there is goes into
        it. None where nothing has come for so long, and where nothing waits and a version is due that `has_learned`
        something already. `waiting` says whether to go on waiting (False ends it at once).
        """
        settings = self._settings
        wait_s = settings.batch_wait_ms / 1000.0
        latest_s = time.monotonic() + wait_s
        self.intake.poll(0.0)
        while not self.intake.has_enough(SESSIONS, settings.batch) and waiting():
            since_s = self.intake.waiting_since(SESSIONS)
            due_s = latest_s if since_s is None else min(latest_s, since_s + wait_s)
            if since_s is not None or has_learned:
                due_s = min(due_s, version_due_s)
            left_s = due_s - time.monotonic()
            if left_s <= 0:
                break
            self.intake.poll(min(left_s, POLL_S))
        limits = {SESSIONS.name: settings.batch, PREFERENCES.name: settings.preference_batch}
        taken = self.intake.take(self.intake.choose(limits))
        if not taken.ranges:
            return None
        self._apply_tokens(self.intake.read_to(TOKENS))
        supplied = self._supplied(taken)
        if unknown_items(supplied.step_input):
            self._apply_tokens(self.intake.end(TOKENS))
            supplied = self._supplied(taken)
        return self._final(supplied)

    def again(self, ranges: Iterable[OffsetRange]) -> Supplied:
        """The input of a journalled step. Raises CheckFailedError where the log no longer holds the same records."""
        wanted = {(r.topic, r.partition): r for r in ranges}
        tokens = wanted.pop(TOKENS, None)
        if tokens is not None:
            self._apply_tokens(tokens.next_offset)
        until = {key: r.next_offset for key, r in wanted.items()}
        self.intake.reach(until, CATCH_UP_S)
        taken = self.intake.take(until)
        for got in taken.ranges:
            want = wanted[got.topic, got.partition]
            if (got.first_offset, got.records) != (want.first_offset, want.records):
                raise CheckFailedError(
                    f"The log changed: partition {want.partition} of {want.topic} had {want.records} records from "
                    f"offset {want.first_offset} to {want.next_offset}, now {got.records} from {got.first_offset}.",
                    "Restore the topic, or move the checkpoints away to train a new seed.",
                )
        return self._final(self._supplied(taken))

    def refresh(self) -> None:
        """Take what has come of item-tokens into the catalogue: before the first step, when there is no input yet."""
        self.intake.poll(0.0)
        self._apply_tokens(self.intake.read_to(TOKENS))
        self._tokens_from = self.intake.taken_to(TOKENS)

    @property
    def catalogue_size(self) -> int:
        """How many items have a semantic id."""
        return len(self._catalogue)

    @property
    def catalogue(self) -> CatalogueSnapshot:
        """The catalogue as of what has been applied. Raises ValueError while it is empty."""
        return self._catalogue.snapshot()

    def _apply_tokens(self, until: int) -> None:
        """Apply item-tokens before `until`."""
        self.intake.reach({TOKENS: until}, CATCH_UP_S)
        taken = self.intake.take({TOKENS: until})
        self._bad.extend(taken.bad)
        for received in taken.records:
            refusal = self._catalogue.apply(received.record, received.offset + 1)
            if refusal is not None:
                self._refusals.append(Refusal(received, refusal.reason, refusal.detail))

    def _supplied(self, taken: Taken) -> Supplied:
        tokens_to = self.intake.taken_to(TOKENS)
        tokens = OffsetRange(
            topic=ITEM_TOKENS.name,
            partition=TOKENS[1],
            first_offset=self._tokens_from,
            next_offset=tokens_to,
            records=0,
            applied=0,
        )
        step_input = StepInput(
            ranges=(tokens, *taken.ranges),
            sessions=taken.of(SESSIONS),
            pairs=taken.of(PREFERENCES),
            catalogue=self._catalogue.snapshot(),
        )
        return Supplied(step_input, (*taken.bad, *self._bad), tuple(self._refusals), taken.read_s)

    def _final(self, supplied: Supplied) -> Supplied:
        self._tokens_from = self.intake.taken_to(TOKENS)
        self._bad.clear()
        self._refusals.clear()
        return supplied

    def close(self) -> None:
        """Leave the broker."""
        self.intake.close()
