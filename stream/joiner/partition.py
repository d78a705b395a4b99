"""One partition that this process owns: its join, its event time, its place in the inputs and its local copy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from confluent_kafka import Message

from onerec.kafka.dead_letters import letter_key, letter_of
from onerec.settings import JoinerSettings
from onerec.state.store import LocalStore
from schemas.reasons import Reason
from schemas.records import History
from schemas.topics import ACTIONS, IMPRESSIONS, id_key
from stream.joiner.choice import join_of
from stream.joiner.joining import HISTORY_PREFIX, USER_PREFIX, Joining, Open
from stream.joiner.plain import came_of
from stream.joiner.state import Point
from stream.joiner.watermark import INPUTS, Watermark
from stream.joiner.wiring import Wiring
from stream.joiner.work import Refusal, Work

SOURCES = (IMPRESSIONS.name, ACTIONS.name)
POINT_KEY = b"point"
"""Key of the partition's own record in the changelog, which no user id is; in the store it stands as it is."""


@dataclass(slots=True)
class Input:
    """One of the two inputs of a partition."""

    next_offset: int
    at_end: bool = False
    """Whether the broker had nothing more when we last read."""
    moved_s: float = field(default_factory=time.monotonic)
    """When the last message came, on the monotonic clock."""

    def moved(self, next_offset: int, now_s: float) -> None:
        """Messages came, up to this offset."""
        self.next_offset = next_offset
        self.at_end = False
        self.moved_s = now_s

    def reached(self, end: int) -> None:
        """The broker had nothing from `end` on."""
        self.at_end = end >= self.next_offset

    def is_idle(self, now_s: float, idle_close_s: float) -> bool:
        """Whether it has been at its end, without a message, for that long."""
        return self.at_end and now_s - self.moved_s >= idle_close_s


class Partition:
    """Built from its local copy, which `restore` has brought up to date."""

    def __init__(
        self, number: int, store: LocalStore, next_offsets: tuple[int, int], wiring: Wiring, settings: JoinerSettings
    ) -> None:
        """Begin at `next_offsets`; raises CheckFailedError where the copy is damaged or of another version."""
        self.number = number
        self.store = store
        self.settings = settings
        self._wiring = wiring
        packed = store.get(POINT_KEY)
        self.watermark = Watermark() if packed is None else Point.unpack(packed).watermark()
        self.inputs = [Input(offset) for offset in next_offsets]
        self.join: Joining = join_of(settings, wiring, self._load_history, self.watermark.value_ms)
        self._committed = packed
        self._committed_offsets = next_offsets
        self.committed_watermark_ms = self.watermark.value_ms
        """How far event time had come at the last commit."""
        self._stands_still = False
        for key, value in store.items(USER_PREFIX):
            self.join.restore(int(key[len(USER_PREFIX) :]), value)

    @property
    def open(self) -> Open:
        """How much of the state is open, as of the last commit."""
        return self.join.open

    @property
    def next_offsets(self) -> tuple[int, int]:
        """Of impressions and actions, the first that is not joined yet."""
        impressions, actions = self.inputs
        return (impressions.next_offset, actions.next_offset)

    def moved(self, source: int, next_offset: int, now_s: float) -> None:
        """Messages of an input came, up to this offset.

        Where both inputs had stood still, the other one is waited for anew: what was done with these impressions may
        have been produced with them and is only fetched after them.
        """
        if all(one.is_idle(now_s, self.settings.idle_close_s) for one in self.inputs):
            for one in self.inputs:
                one.moved_s = now_s
        self.inputs[source].moved(next_offset, now_s)

    def advance(self, now_s: float) -> None:
        """Let the watermark pass what it can, and close everything once the inputs have stood still long enough."""
        idle = [source for source in INPUTS if self.inputs[source].is_idle(now_s, self.settings.idle_close_s)]
        if len(idle) < len(INPUTS):
            self._stands_still = False
            self.join.advance(self.watermark.advance(self.settings.allowed_lateness_ms, idle))
        elif not self._stands_still:
            self.join.advance(self.watermark.pass_everything(self.settings.feedback_window_ms))
            self._stands_still = not self.join.is_behind() and self.join.close_idle()

    def refuse(self, source: int, message: Message, reason: Reason, detail: str) -> None:
        """Put an input record to dead-letters with the next commit."""
        self.join.refuse(Refusal(SOURCES[source], came_of(message), reason, detail))

    def has_changes(self) -> bool:
        """Whether a transaction has something to write."""
        return self.next_offsets != self._committed_offsets or self.join.has_changes()

    def uncommitted(self) -> int:
        """How many places of the inputs have been read and are covered by no transaction yet."""
        return sum(self.next_offsets) - sum(self._committed_offsets)

    def work(self) -> Work | None:
        """What the next transaction has to write; None where there is nothing."""
        point = Point.of(self.next_offsets, self.watermark).pack()
        if point == self._committed and not self.join.has_changes():
            return None
        work = Work(self.number, self.next_offsets, self.store)
        self.join.write(work)
        for refusal in work.tally.refusals:
            work.dead_letters.append((letter_key(refusal.came.key), self._dead_letter(refusal), 0))
        work.change(POINT_KEY, POINT_KEY, point)
        return work

    def committed(self, work: Work) -> None:
        """The work is committed and in the local copy."""
        self._committed = work.local[-1][1]
        self._committed_offsets = work.next_offsets
        self.committed_watermark_ms = Point.unpack(self._committed or b"").watermark_ms
        self.join.stored()

    def _dead_letter(self, refusal: Refusal) -> bytes:
        came = refusal.came
        letter = letter_of(
            self._wiring.kafka,
            topic=refusal.source,
            partition=self.number,
            offset=came.offset,
            timestamp_ms=came.timestamp_ms,
            key=came.key,
            value=came.value,
            reason=refusal.reason,
            detail=refusal.detail,
            service="joiner",
        )
        return self._wiring.dead_letter_codec.encode(letter)

    def _load_history(self, user_id: int) -> History | None:
        encoded = self.store.get(HISTORY_PREFIX + id_key(user_id))
        return None if encoded is None else self._wiring.history_codec.decode(encoded)
