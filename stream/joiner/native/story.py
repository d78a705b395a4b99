"""A random stream with all that may befall it, to hold two joins equal on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from operator import methodcaller

from schemas.records import Action, ActionKind, Impression
from schemas.topics import id_key
from stream.joiner.watermark import IMPRESSIONS, INPUTS
from stream.joiner.wiring import Wiring


class Came:
    """As much of a message as a join looks at."""

    def __init__(self, offset: int, time_ms: int, key: bytes | None, value: bytes) -> None:
        self._offset, self._time_ms, self._key, self._value = offset, time_ms, key, value

    def offset(self) -> int:
        """Where it stood."""
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """Its kind and the time; now and then it has none."""
        return (int(self._offset % 7 > 0), self._time_ms)

    def key(self) -> bytes | None:
        """Its key."""
        return self._key

    def value(self) -> bytes:
        """Its value."""
        return self._value


def story(rng: random.Random, wiring: Wiring, steps: int) -> Iterator[methodcaller]:
    """Batches in and out of time with repetitions and strange values, and between them all that a partition does."""
    now_ms, known = 1_000, [(1, 1, 1, 1_000)]
    for number in range(steps):
        now_ms += rng.choice((0, 1, 5, 20, 60))
        source, stride, messages = rng.choice(INPUTS), rng.choice((1, 3)), []
        for place in range(rng.choice((1, 3, 12, 40))):
            request, user, item, shown_ms = rng.choice(known)
            time_ms = max(0, (shown_ms if rng.random() < 0.7 else now_ms) + rng.randint(-25, 25))
            if source == IMPRESSIONS or rng.random() < 0.2:
                request, user, item = rng.randint(1, 9) * 10 ** rng.randint(0, 17), rng.randint(1, 4), rng.randint(1, 6)
                known = [*known[-30:], (request, user, item, time_ms)]
            value = _value(rng, wiring, source, (request, user, item, time_ms))
            key = rng.choice((None, b"", id_key(user), b"x" * 300))
            messages.append(Came(200 * number + stride * place, time_ms, key, value))
        yield methodcaller("take", source, messages, now_ms)
        if rng.random() < 0.6:
            yield methodcaller("advance", now_ms - rng.randint(0, 40))
        if rng.random() < 0.3:
            yield methodcaller("commit")
        if rng.random() < 0.1:
            yield methodcaller("close_idle")
        if rng.random() < 0.1:
            yield methodcaller("commit")
            yield methodcaller("begin")
    yield methodcaller("advance", now_ms + 1_000)
    yield methodcaller("commit")


def _value(rng: random.Random, wiring: Wiring, source: int, event: tuple[int, int, int, int]) -> bytes:
    request, user, item, time_ms = event
    named = {"request_id": request, "user_id": user, "item_id": item, "time_ms": time_ms}
    named["produced_ms"] = time_ms + rng.randint(0, 5)
    if source == IMPRESSIONS:
        version, position = rng.choice((None, 0, 3, 2**63 - 1)), rng.choice((0, 1, 2**31 - 1))
        value = wiring.impression_codec.encode(Impression(**named, position=position, model_version=version))
    else:
        kind, watch_ms = rng.choice(list(ActionKind)), rng.choice((None, 0, 7, 1_000, 20_000, 40_000))
        duration_ms = rng.choice((None, 900, 9_500))
        value = wiring.action_codec.encode(Action(**named, kind=kind, watch_ms=watch_ms, duration_ms=duration_ms))
    return value if rng.random() < 0.97 else value[: rng.randint(0, len(value))] + b"\x01" * rng.randint(0, 12)
