"""Faust's transport for Kafka, with a fetch that does not wait.

Faust asks for `fetch_max_wait_ms=1500` and has no setting for it. A broker that answers a waiting fetch only
when its time is up (the embedded one does) then holds every new record back for 0.75 s on average.
"""

from __future__ import annotations

import logging
from typing import Any

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

LOG = logging.getLogger("faust.transport")  # as talkative as the rest of Faust
FETCH_WAIT_MS = 50


class _PromptThread(AIOKafkaConsumerThread):
    """Runs aiokafka's consumer."""

    logger = LOG

    def _create_worker_consumer(self, transport: Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # it is read when the consumer starts
        return consumer


class _PromptConsumer(Consumer):
    """Faust's side of the consumer."""

    logger = LOG

    def _new_consumer_thread(self) -> _PromptThread:
        return _PromptThread(self, loop=self.loop, beacon=self.beacon)


class PromptTransport(Transport):
    """Give it to an application before it starts: `app.transport = PromptTransport(app.conf.broker_consumer, app)`."""

    Consumer = _PromptConsumer
