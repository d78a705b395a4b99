"""Whether the compiled join may be used: it must have done as Python does, once in each process."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from onerec.settings import JoinerSettings, KafkaSettings
from schemas.bounds import Limits, violation
from schemas.codec import DecodeError
from schemas.records import History
from schemas.topics import id_key
from stream.joiner.columns import bounds_of
from stream.joiner.join import BEGINNING_MS
from stream.joiner.joining import HISTORY_PREFIX, USER_PREFIX, Joining
from stream.joiner.native import binding
from stream.joiner.native.binding import Functions
from stream.joiner.native.join import NativeJoin
from stream.joiner.native.story import story
from stream.joiner.plain import PlainJoin
from stream.joiner.rows import action_row, impression_row
from stream.joiner.watermark import IMPRESSIONS
from stream.joiner.wiring import Wiring, names
from stream.joiner.work import Work

LOG = logging.getLogger(__name__)
RULES = JoinerSettings(session_items=3, session_gap_ms=40, feedback_window_ms=15, history_items=4)
STEPS = 25
"""Some 50 ms of a start. The tests go further."""
LIMITS = Limits(max_future_ms=15, max_watch_ms=30_000)
UNKNOWN_ITEM = 6
Make = Callable[[JoinerSettings, Wiring, Callable[[int], History | None], int], Joining]


@cache
def checked() -> Functions | None:
    """The compiled join; None where it is not built or differs from Python's."""
    functions = binding.load()
    if functions is None:
        return None
    difference = disagreement(functions, seed=0)
    if difference is None:
        return functions
    LOG.error("the compiled join differs from Python's in %s: it is not used, Python joins", difference)
    return None


def disagreement(functions: Functions, *, seed: int, steps: int = STEPS, rules: JoinerSettings = RULES) -> str | None:
    """In what the two joins differ over a random stream with all that may befall it; None for nothing."""
    wiring = names(KafkaSettings(), "check", ())

    def native(*arguments: Any) -> Joining:
        return NativeJoin(functions, *arguments)

    lives = [Life(make, rules, wiring) for make in (PlainJoin, native)]
    for number, step in enumerate(story(random.Random(seed), wiring, steps)):
        told = [step(life) for life in lives]
        if told[0] != told[1]:
            return f"step {number}: {_first_difference(*told)}"[:1000]
    return None


def _first_difference(plain: Any, compiled: Any) -> str:
    if isinstance(plain, dict):
        name = next(name for name, value in plain.items() if value != compiled[name])
        return f"{name}: {_first_difference(plain[name], compiled[name])}"
    if isinstance(plain, list) and len(plain) == len(compiled):
        one, other = next(pair for pair in zip(plain, compiled, strict=True) if pair[0] != pair[1])
        return f"{one} by Python, {other} compiled"
    return f"{plain} by Python, {compiled} compiled"


@dataclass
class Life:
    """A join with the local copy that it writes to."""

    make: Make
    rules: JoinerSettings
    wiring: Wiring
    local: dict[bytes, bytes] = field(default_factory=dict)
    watermark_ms: int = BEGINNING_MS

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> Any:
        """Begin anew from the local copy, as after a crash; what is open."""
        self.join = self.make(self.rules, self.wiring, self._load_history, self.watermark_ms)
        for key, value in sorted(self.local.items()):
            if key.startswith(USER_PREFIX):
                self.join.restore(int(key[len(USER_PREFIX) :]), value)
        return self.join.open

    def take(self, source: int, messages: Sequence[Any], now_ms: int) -> Any:
        """Join a batch; what was found in it. How much is left to the codec may differ."""
        events = self.join.read(source, [message.value() for message in messages], bounds_of(LIMITS, now_ms))
        for place in events.left():
            try:
                record = (self.wiring.impression_codec, self.wiring.action_codec)[source].decode(
                    messages[place].value()
                )
            except DecodeError:
                continue
            if violation(record, now_ms, LIMITS) is None:
                events.put(place, impression_row(record) if source == IMPRESSIONS else action_row(record))
        dropped = events.drop({UNKNOWN_ITEM})
        self.join.take(source, events, messages)
        return (dropped, events.newest_ms(), sorted(events.items()), self.join.has_changes())

    def advance(self, watermark_ms: int) -> Any:
        """Let time pass; whether something is left to do."""
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        self.join.advance(watermark_ms)
        return self.join.is_behind()

    def commit(self) -> Any:
        """Write and store; all that was written."""
        work: Any = Work(0, (0, 0), None)  # type: ignore[arg-type] # nothing is stored in it
        self.join.write(work)
        for key, value in work.local:
            if value is None:
                self.local.pop(key, None)
            else:
                self.local[key] = value
        self.join.stored()
        tally = work.tally
        return {
            "sessions": work.sessions,
            "histories": work.histories,
            "changelog": work.changelog,
            "local copy": sorted(work.local),
            "refusals": tally.refusals,
            "counts": (tally.events, tally.late_impressions, tally.duplicates, dict(tally.closed)),
            "open": (self.join.open.impressions, self.join.open.actions, self.join.open.sessions),
        }

    def close_idle(self) -> Any:
        """The stream stands still; whether all is closed."""
        return self.join.close_idle()

    def _load_history(self, user_id: int) -> History | None:
        encoded = self.local.get(HISTORY_PREFIX + id_key(user_id))
        return None if encoded is None else self.wiring.history_codec.decode(encoded)
