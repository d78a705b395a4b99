"""The sides of the codec bench: the same records, decoded by us and by fastavro alone."""

from __future__ import annotations

import copy
import io
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import fastavro

from schemas import definitions
from schemas.codec import SINGLE_OBJECT_BYTES, Codec
from schemas.packed import pack_longs
from schemas.records import Action, ActionKind, ClosedBy, Impression, Session, SessionItem
from schemas.topics import ACTIONS, IMPRESSIONS, SESSIONS
from stream.joiner.columns import Columns

BATCH = 1_000
HISTORY = 64
ARRAYS = ("history_items", "history_times_ms")


def impressions(count: int) -> list[bytes]:
    """Encoded impressions."""
    rng, codec = random.Random(0), Codec(IMPRESSIONS)
    return [
        codec.encode(
            Impression(
                request_id=rng.getrandbits(62),
                user_id=rng.randrange(10**6),
                item_id=rng.randrange(10**6),
                position=rng.randrange(10),
                time_ms=1_700_000_000_000 + rng.randrange(10**9),
                model_version=rng.randrange(1000),
                produced_ms=1_700_000_000_000 + rng.randrange(10**9),
            )
        )
        for _ in range(count)
    ]


def actions(count: int) -> list[bytes]:
    """Encoded actions."""
    rng, codec = random.Random(1), Codec(ACTIONS)
    return [
        codec.encode(
            Action(
                request_id=rng.getrandbits(62),
                user_id=rng.randrange(10**6),
                item_id=rng.randrange(10**6),
                kind=ActionKind.VIEW,
                time_ms=1_700_000_000_000 + rng.randrange(10**9),
                watch_ms=rng.randrange(60_000),
                duration_ms=rng.randrange(60_000),
                produced_ms=1_700_000_000_000 + rng.randrange(10**9),
            )
        )
        for _ in range(count)
    ]


def sessions(count: int) -> list[Session]:
    """Sessions of five items after a history of HISTORY."""
    rng = random.Random(2)
    return [_session(rng, number) for number in range(count)]


def _session(rng: random.Random, number: int) -> Session:
    items = tuple(
        SessionItem(
            item_id=rng.randrange(10**6),
            request_id=rng.getrandbits(62),
            position=place,
            time_ms=1_700_000_000_000 + place,
            watch_ms=rng.randrange(60_000),
            duration_ms=rng.randrange(60_000),
            labels=rng.randrange(64),
            produced_ms=1_700_000_000_000 + place,
        )
        for place in range(5)
    )
    return Session(
        session_id=number,
        user_id=rng.randrange(10**6),
        history_items=pack_longs(rng.randrange(10**6) for _ in range(HISTORY)),
        history_times_ms=pack_longs(1_700_000_000_000 + rng.randrange(10**9) for _ in range(HISTORY)),
        history_labels=bytes(rng.randrange(64) for _ in range(HISTORY)),
        items=items,
        start_ms=1_700_000_000_000,
        end_ms=1_700_000_000_004,
        total_watch_ms=sum(item.watch_ms for item in items),
        high_quality=False,
        closed_by=ClosedBy.FULL,
    )


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


class Ours:
    """Side: batches to rows as the joiner reads them, and session records by the codec."""

    def __init__(self, *, records: int) -> None:
        self._impressions, self._actions = impressions(records), actions(records)
        codec = Codec(SESSIONS)
        self._sessions = [codec.encode(session) for session in sessions(records)]
        self._codec = codec

    def prepare(self) -> dict[str, Any]:
        """Warm up; how long a value is."""
        self._columns = {"impressions": Columns(Impression), "actions": Columns(Action)}
        rows = self._columns["impressions"].read(self._impressions[:BATCH], {})
        if None in rows:
            raise ValueError("impressions were left to the codec: the bench would measure something else")
        self.repeat()
        return {"batch": BATCH, "session_bytes": len(self._sessions[0])}

    def repeat(self) -> dict[str, Any]:
        """Seconds of each kind, and of all."""
        told = {
            "impressions": _timed(lambda: self._rows("impressions", self._impressions)),
            "actions": _timed(lambda: self._rows("actions", self._actions)),
            "sessions": _timed(lambda: self._codec.decode_many(self._sessions)),
        }
        return told | {"seconds": sum(told.values())}

    def _rows(self, kind: str, values: list[bytes]) -> None:
        for first in range(0, len(values), BATCH):
            self._columns[kind].read(values[first : first + BATCH], {})


class Fastavro:
    """Side: `schemaless_reader` with a parsed schema, one record after another, to dictionaries.

    Its sessions carry their histories as Avro arrays of longs.
    """

    def __init__(self, *, records: int) -> None:
        unpacked = copy.deepcopy(dict(definitions.current()["Session"]))
        for field in unpacked["fields"]:
            if field["name"] in ARRAYS:
                field["type"] = {"type": "array", "items": "long"}
                field.pop("default", None)
        self._schemas = {
            "impressions": definitions.parsed(definitions.current()["Impression"]),
            "actions": definitions.parsed(definitions.current()["Action"]),
            "sessions": fastavro.parse_schema(unpacked),
        }
        self._values = {"impressions": impressions(records), "actions": actions(records)}
        self._values["sessions"] = [self._with_arrays(value) for value in sessions(records)]

    def prepare(self) -> dict[str, Any]:
        """Warm up."""
        self.repeat()
        return {"peer": f"fastavro {fastavro.__version__}", "session_bytes": len(self._values["sessions"][0])}

    def repeat(self) -> dict[str, Any]:
        """Seconds of each kind, and of all."""
        told = {kind: _timed(partial(self._read, values, self._schemas[kind])) for kind, values in self._values.items()}
        return told | {"seconds": sum(told.values())}

    def _read(self, values: list[bytes], schema: Any) -> None:
        for value in values:
            body = io.BytesIO(value)
            body.seek(SINGLE_OBJECT_BYTES)
            fastavro.schemaless_reader(body, schema, None)

    def _with_arrays(self, session: Session) -> bytes:
        packed = Codec(SESSIONS).encode(session)
        body = io.BytesIO(packed)
        body.seek(SINGLE_OBJECT_BYTES)
        values: Any = fastavro.schemaless_reader(body, definitions.parsed(definitions.current()["Session"]), None)
        for name in ARRAYS:
            values[name] = memoryview(values[name]).cast("q").tolist()
        out = io.BytesIO()
        out.write(packed[:SINGLE_OBJECT_BYTES])
        fastavro.schemaless_writer(out, self._schemas["sessions"], values)
        return out.getvalue()
