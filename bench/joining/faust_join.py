"""Peer: Faust doing a table update for each event and a send for every fifth of a user.

`python -m bench.joining.faust_join BOOTSTRAP PREFIX APP FOLDER`: less than the joiner does, and at least once.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import fastavro
import faust

from schemas import definitions
from schemas.codec import SINGLE_OBJECT_BYTES

PARTITIONS, SESSION_ITEMS = 4, 5


def application(servers: str, prefix: str, name: str, folder: str) -> faust.App:
    """The program."""
    app = faust.App(
        name,
        broker=f"kafka://{servers}",
        store="memory://",
        datadir=folder,  # else it leaves one where it is started
        topic_partitions=PARTITIONS,
        topic_allow_declare=True,
        broker_commit_interval=0.5,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    schema = definitions.parsed(definitions.current()["Impression"])
    shown = app.topic(f"{prefix}impressions", key_type=bytes, value_type=bytes, value_serializer="raw")
    sessions = app.topic(
        f"{name}-sessions", key_type=bytes, value_type=bytes, value_serializer="raw", partitions=PARTITIONS
    )
    pending: Any = app.Table(f"{name}-pending", default=list, partitions=PARTITIONS)

    @app.agent(shown)
    async def join(stream: Any) -> None:
        async for key, value in stream.items():
            body = io.BytesIO(value)
            body.seek(SINGLE_OBJECT_BYTES)
            event: Any = fastavro.schemaless_reader(body, schema, None)
            user = str(event["user_id"])
            items = [*pending[user], event["item_id"]]
            if len(items) == SESSION_ITEMS:
                await sessions.send(key=key, value=repr(items).encode())
                items = []
            pending[user] = items

    return app


if __name__ == "__main__":
    program = application(*sys.argv[1:5])
    worker = faust.Worker(program, loglevel="WARNING", redirect_stdouts=False)
    worker.execute_from_commandline()
