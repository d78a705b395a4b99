"""Peer: quixstreams doing the same join, exactly once, with its state and changelog on.

`python -m bench.joining.quix_join BOOTSTRAP PREFIX APP STATE`. It has no timers, so a user's windows close with the
user's next event, and not where nobody comes any more; otherwise the work is that of the joiner.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import fastavro
from quixstreams import Application

from bench.joining.quix_rows import advance, new_user
from schemas import definitions
from schemas.codec import SINGLE_OBJECT_BYTES


def main(servers: str, prefix: str, name: str, state: str) -> None:
    """Join until stopped."""
    app = Application(
        broker_address=servers,
        consumer_group=name,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_interval=0.4,
        commit_every=20_000,
        state_dir=state,
        loglevel="WARNING",
    )
    raw = {"key_deserializer": "bytes", "value_deserializer": "bytes"}
    shown = app.dataframe(app.topic(f"{prefix}impressions", **raw)).apply(_reader("Impression"))
    done = app.dataframe(app.topic(f"{prefix}actions", **raw)).apply(_reader("Action"))
    joined = shown.concat(done).apply(join, stateful=True, expand=True)
    joined.to_topic(app.topic(f"{name}-results", key_serializer="bytes", value_serializer="json"))
    app.run()


def _reader(record: str) -> Any:
    schema = definitions.parsed(definitions.current()[record])

    def read(value: bytes) -> Any:
        body = io.BytesIO(value)
        body.seek(SINGLE_OBJECT_BYTES)
        return fastavro.schemaless_reader(body, schema, None)

    return read


def join(event: dict[str, Any], state: Any) -> list[dict[str, Any]]:
    """What an event closes."""
    user = state.get("user") or new_user()
    results = advance(user, event)
    state.set("user", user)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:5])
