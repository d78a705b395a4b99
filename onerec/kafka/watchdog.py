"""Ends a process whose call into librdkafka does not come back, whatever timeout it was given.

`send_offsets_to_transaction` ignores its timeout while the group's coordinator cannot be reached, and may then wait
for ever, also when the broker is back (librdkafka issue 5456, open as of 2.14). Nothing but the end of the process
gets out of such a call; its successor goes on from what is committed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger(__name__)
EXIT_CODE = 1
"""Failed unexpectedly: a supervisor starts the service again."""


@contextmanager
def comes_back(call: str, within_s: float) -> Iterator[None]:
    """End the process with code 1 and a sentence where the block takes longer than `within_s` seconds."""
    watch = threading.Timer(within_s, _end, (call, within_s))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _end(call: str, within_s: float) -> None:
    LOG.critical(
        "%s has not come back within %g s: librdkafka waits for a coordinator for ever. The process ends; start it "
        "again, it goes on from what is committed.",
        call,
        within_s,
    )
    logging.shutdown()
    os._exit(EXIT_CODE)
