"""A Faust service for the tests: writes the id of each request it handles to a file; fails on some."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from onerec.errors import CheckFailedError
from onerec.faust_service import FaustHost, run_faust_service
from onerec.kafka.reader import Received
from onerec.settings import load_settings
from schemas.topics import IMPRESSIONS, REQUESTS

FAILS, HANGS, ENDS = 666, 777, 888
"""Request ids on which the handler raises, waits for ever, ends the service."""


def main(out: Path) -> int:
    settings = load_settings()

    def setup(host: FaustHost) -> None:
        def write(line: str) -> None:
            with out.open("a") as file:
                file.write(line + "\n")

        async def handle(received: Received) -> None:
            number = received.record.request_id
            if number == FAILS:
                raise ValueError("no such luck")
            if number == HANGS:
                await asyncio.Event().wait()
            if number == ENDS:
                raise CheckFailedError("The check failed.", "Mend it.")
            await host.in_thread(write, str(number))

        async def handle_batch(batch: Sequence[Received]) -> None:
            ids = [received.record.request_id for received in batch]
            if FAILS in ids:
                raise ValueError("one of these")
            await host.in_thread(write, "batch " + " ".join(map(str, ids)))

        host.consume(REQUESTS, handle, at_once=4)
        host.consume_batches(IMPRESSIONS, handle_batch, max_batch=8)

    return run_faust_service("echo", settings, setup)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
