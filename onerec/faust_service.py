"""Hosts a Faust application like every other service: our logging, signals, metrics, readiness and exit codes.

Used by tokenizer and sampler, and nowhere else:

    def setup(host: FaustHost) -> None:
        codebook = load(...)                                    # may block; an OneRecError ends the service
        host.consume_batches(ITEMS, handle, max_batch=512)      # async def handle(batch: Sequence[Received])
        host.resources.callback(writer.close)                   # runs when the service ends, last in first out

    exit_code = run_faust_service("tokenizer", settings, setup)

What Faust leaves open and this adds: a record that does not decode, or on which the handler fails, goes to
dead-letters and is counted, and reading goes on; an exception elsewhere ends the service with code 1 instead of
a silent restart of the agent; a broker that stays away ends it with code 3 (Faust alone goes on without one for
ever). A record's offset is committed only after its handler has ended: after a crash some are handled again, so
what a handler writes has ids that are functions of its input. Blocking work (torch) runs by `host.in_thread`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

import faust
from aiokafka.errors import BrokerResponseError, KafkaConnectionError
from confluent_kafka import KafkaError, KafkaException
from faust.worker import Worker

from onerec.errors import DependencyMissingError, OneRecError
from onerec.faust_agents import Batches, Handle, HandleBatch, Records
from onerec.faust_security import credentials
from onerec.faust_transport import PromptTransport
from onerec.kafka import admin, clients
from onerec.kafka.access import require_rights
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.rights import USERS
from onerec.kafka.trouble import NO_RIGHT, explained, no_broker
from onerec.service import Stop, run_service
from onerec.settings import Settings
from schemas.topics import Topic

LOG = logging.getLogger(__name__)
START_PATIENCE_S = 30.0
STOP_PATIENCE_S = 5.0
WATCH_S = 2.0
METADATA_MAX_AGE_MS = 5_000
P = ParamSpec("P")
T = TypeVar("T")


class FaustHost:
    """One Faust application and what it needs around it."""

    def __init__(self, name: str, settings: Settings, stop: Stop, *, from_newest: bool = False) -> None:
        self.name = name
        self.settings = settings
        self.kafka = settings.kafka
        self.stop = stop
        self.resources = ExitStack()
        self.refused = DeadLetters(settings.kafka, name)
        self.error: OneRecError | None = None
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.group = name
        """Consumer group without its prefix; `setup` may choose another one before it consumes."""
        self._from_newest = from_newest
        self._worker: _QuietWorker | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-work")

    @cached_property
    def app(self) -> faust.App:
        """The Faust application, made when it is first needed."""
        return _app(self.name, self.group, self.settings, self.loop, from_newest=self._from_newest)

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work on the service's one work thread; the event loop goes on."""
        return await self.loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def consume(self, topic: Topic, handle: Handle, *, at_once: int = 1) -> Records:
        """Hand every record of `topic` to `handle`, up to `at_once` at the same time; 1 keeps the order."""
        records = Records(self, topic, at_once)
        self._start_agent(topic, records.agent(handle))
        return records

    def consume_batches(self, topic: Topic, handle: HandleBatch, *, max_batch: int, within_s: float = 0.05) -> None:
        """Hand records of `topic` to `handle` in batches: full ones, or what came in `within_s`.

        Where `handle` fails on a batch it gets the records one by one, so that only the guilty ones are refused.
        """
        self._start_agent(topic, Batches(self, topic, max_batch, within_s).agent(handle))

    def ready(self) -> None:
        """Mark the service ready; done by itself once Faust has its partitions."""
        self.stop.ready()

    def fail(self, error: OneRecError) -> None:
        """End the service with the error's sentence and exit code. Call it on the event loop."""
        if self.error is None:
            self.error = error
            threading.Thread(target=self._end_hard, args=(int(error.exit_code),), daemon=True).start()
        if self._worker is not None:
            self._worker.end()

    def run(self) -> None:
        """Run until a signal or `fail`. Raises what ended it."""
        crash: BaseException | None = None
        self._worker = _QuietWorker(self)
        watch = threading.Thread(target=self._watch_broker, name="broker-watch", daemon=True)
        watch.start()
        try:
            self._worker.execute_from_commandline()
        except SystemExit as ended:
            crash = ended.__context__ if ended.code else None
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)  # before resources close that its work uses
            self.stop.set()
            watch.join(STOP_PATIENCE_S)
        if self.error is not None:
            raise self.error
        reason = crash or self._worker.crash_reason or self.app.crash_reason
        if isinstance(reason, KafkaConnectionError):
            raise no_broker(self.kafka, str(reason)) from reason
        if isinstance(reason, BrokerResponseError) and reason.errno in NO_RIGHT:
            denied = KafkaException(KafkaError(reason.errno))
            raise explained(denied, self.kafka, f"group {self.kafka.group_prefix}{self.group}") from reason
        if reason is not None:
            raise reason

    def _start_agent(self, topic: Topic, body: Callable[[Any], Awaitable[None]]) -> None:
        async def guarded(stream: Any) -> None:
            try:
                await body(stream)
            except Exception as error:
                LOG.exception("the agent on %s crashed", topic.name)
                self.fail(
                    AgentCrashedError(f"The agent on {topic.name} crashed: {error!r}.", "Start the service again.")
                )
                raise

        channel = self.app.topic(
            clients.topic_name(self.settings.kafka, topic), value_type=bytes, value_serializer="raw", key_type=bytes
        )
        self.app.agent(channel, name=f"{self.name}-{topic.name}")(guarded)

    def _watch_broker(self) -> None:
        """Faust goes on for ever without a broker; end the service once none has answered for the set time."""
        patience_s = self.kafka.broker_patience_s
        silent_since: float | None = None
        while not self.stop.wait(min(WATCH_S, patience_s / 3)):
            try:
                admin.wait_for_broker(self.kafka, min(WATCH_S, patience_s / 3))
                silent_since = None
            except DependencyMissingError as error:
                silent_since = silent_since or time.monotonic()
                silence_s = time.monotonic() - silent_since
                LOG.warning("no broker has answered for %.0f s, ending after %.0f s: %s", silence_s, patience_s, error)
                if silence_s >= patience_s:
                    self.loop.call_soon_threadsafe(self.fail, error)
                    return

    def _end_hard(self, code: int) -> None:
        """A client that hangs while closing must not keep a failed service alive."""
        if not self.stop.wait(STOP_PATIENCE_S):
            LOG.error("%s; Faust did not end in %.0f s, ending the process", self.error, STOP_PATIENCE_S)
            os._exit(code)


class AgentCrashedError(OneRecError):
    """A defect outside of the handlers: start again, from the last commit."""


class _QuietWorker(Worker):
    """Faust's worker without its logging, banner, debugger and second-long goodbye."""

    def __init__(self, host: FaustHost) -> None:
        super().__init__(
            host.app, loop=host.loop, quiet=True, loglevel=None, override_logging=False, redirect_stdouts=False
        )
        self._host = host
        self.spinner = None

    def end(self) -> None:
        """Stop as if a signal had come."""
        import signal  # noqa: PLC0415

        self._schedule_shutdown(signal.SIGTERM)

    async def on_startup_finished(self) -> None:
        """Faust has its partitions."""
        await super().on_startup_finished()
        self._host.ready()

    def _on_sigint(self) -> None:
        LOG.info("SIGINT: stopping")
        self.end()

    def _on_sigterm(self) -> None:
        LOG.info("SIGTERM: stopping")
        self.end()

    def _on_sigusr2(self) -> None:
        LOG.info("SIGUSR2 ignored")

    def _setproctitle(self, info: str, *, ident: str = "") -> None:
        """Keep the process's own name."""

    async def _sentinel_task(self) -> None:
        """No need to wait a second for a closed loop."""


def run_faust_service(
    name: str, settings: Settings, setup: Callable[[FaustHost], None], *, from_newest: bool = False
) -> int:
    """Run a Faust service until it is told to stop; the exit code for `sys.exit`.

    `setup` registers consumers on the host; it may block, and raise an OneRecError. A group that has no
    committed offset starts at the oldest record, with `from_newest` at the newest.
    """

    def body(stop: Stop) -> None:
        admin.wait_for_broker(settings.kafka, START_PATIENCE_S)
        if name in USERS:
            require_rights(settings, name)
        host = FaustHost(name, settings, stop, from_newest=from_newest)
        with host.resources:
            setup(host)
            if not stop.is_set():
                host.run()

    return run_service(name, settings, body)


def _app(name: str, group: str, settings: Settings, loop: asyncio.AbstractEventLoop, *, from_newest: bool) -> faust.App:
    kafka = settings.kafka
    settings.store.state_dir.mkdir(parents=True, exist_ok=True)  # Faust makes only the last folder of its path
    app = faust.App(
        f"{kafka.group_prefix}{group}",
        loop=loop,
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=credentials(kafka),
        broker_client_id=f"onerec-{name}",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=2.0,
        broker_commit_interval=0.5,
        consumer_auto_offset_reset="latest" if from_newest else "earliest",
        # aiokafka asks who leads a partition again after an error in most places, but not where it looks for the
        # offset to begin at: there it asks the old leader until this time is over, five minutes by default.
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        datadir=str(settings.store.state_dir / f"faust-{name}"),
        web_enabled=False,
        stream_wait_empty=False,  # what has not ended is handled again: neither a stop nor a rebalance waits for it
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
    )
    app.transport = PromptTransport(app.conf.broker_consumer, app)
    return app
