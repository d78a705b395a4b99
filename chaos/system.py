"""The system under test: every service as a process of its own, over topics and in a directory of its own."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos import topics
from chaos.configuration import tables, toml
from chaos.drain import Progress
from chaos.feed import Feed
from chaos.log_slice import LogSlice
from onerec.demo.supervisor import Supervisor
from onerec.errors import DependencyMissingError
from onerec.kafka import admin
from onerec.kafka.writer import RecordWriter
from onerec.metrics import scrape
from onerec.settings import KafkaSettings, Settings
from stream.replay.messages import history_messages, item_messages

LOG = logging.getLogger(__name__)
READY_TIMEOUT_S = 180.0
FLUSH_S = 60.0
JOB_TIMEOUT_S = 120.0
POLL_S = 0.1
RECORDS_PER_S = 60.0
TRAINER, TOKENIZER, SAMPLER = "trainer", "tokenizer", "sampler"
"""Names of the services that there is one of; joiners and workers have a number."""


def joiner(number: int) -> str:
    """Name of a joiner."""
    return f"joiner-{number}"


def worker(number: int) -> str:
    """Name of a worker."""
    return f"worker-{number}"


class System:
    """Use as a context manager: entering starts it and returns once everything is ready, leaving stops it."""

    def __init__(
        self, kafka: KafkaSettings, directory: Path, log: LogSlice, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """`kafka` has prefixes of the system's own; `environment` adds settings for all its services."""
        self.directory = directory
        self.log = log
        self.config = directory / "onerec.toml"
        found = tables(kafka, directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(toml(found))
        self.settings = Settings(**found)
        self.environment = {
            "ONEREC_CONFIG": str(self.config.resolve()),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self.supervisor = Supervisor(directory, self.environment)
        self._stack = ExitStack()
        self.progress: Progress

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.supervisor)
            self._publish_past()
            self.supervisor.run("codebook", "stream", "codebook", timeout_s=JOB_TIMEOUT_S)
            self._start(TOKENIZER, "stream", "tokenizer")
            self._start(TRAINER, "trainer", "run")
            self.start_joiner(0)
            self.start_worker(0)
            self._start(SAMPLER, "inference", "sampler")
            self.wait_ready(*self.services)
            self.progress = stack.enter_context(Progress(self.settings.kafka))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resume(self.services)
        self._stack.close()

    @property
    def services(self) -> list[str]:
        """Names of the services that should run."""
        return list(self.supervisor.services)

    def start_joiner(self, number: int, **environment: str) -> str:
        """Another joiner; its name."""
        own = {"ONEREC_STREAM__JOINER__INSTANCE": str(number), **environment}
        return self._start(joiner(number), "stream", "joiner", **own)

    def start_worker(self, number: int, **environment: str) -> str:
        """Another worker; its name."""
        return self._start(worker(number), "inference", "worker", **environment)

    def start_second_trainer(self) -> str:
        """A trainer on the same checkpoints, as whoever takes the first one for dead would start; its name."""
        shared = {"ONEREC_STORE__STATE_DIR": str(self.directory / "state" / TRAINER)}
        return self._start("second-trainer", "trainer", "run", **shared)

    def feeding(self, per_s: float = RECORDS_PER_S) -> Feed:
        """The log flows while this context lasts."""
        return Feed(self.settings, self.log, per_s)

    def kill(self, names: Iterable[str]) -> int:
        """SIGKILL; how many of them ran. `tend` starts them again."""
        running = [name for name in names if self.supervisor.services[name].running]
        for name in running:
            self.supervisor.kill(name)
        return len(running)

    def pause(self, name: str) -> None:
        """SIGSTOP: to everybody else it is dead."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, names: Iterable[str]) -> None:
        """SIGCONT: it wakes up and knows nothing of what happened."""
        for name in names:
            self._signal(name, signal.SIGCONT)

    def stop(self, *names: str) -> None:
        """SIGTERM, in order; they are not started again."""
        self.supervisor.stop(names, timeout_s=60.0)

    def tend(self, for_s: float = 0.0) -> None:
        """Start again what died, as `onerec up` does, for so long. Raises OneRecError for what must not be."""
        deadline_s = time.monotonic() + for_s
        while True:
            self.supervisor.check()
            if time.monotonic() >= deadline_s:
                return
            time.sleep(POLL_S)

    def wait_ready(self, *names: str) -> None:
        """Until these services do their work. Raises DependencyMissingError where they do not in time."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while waiting := [name for name in names if not self._is_ready(name)]:
            self.supervisor.check()
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(
                    f"{', '.join(waiting)} did not get ready within {READY_TIMEOUT_S:.0f} s.",
                    f"See the logs in {self.directory / 'logs'}.",
                )
            time.sleep(POLL_S)

    def finish(self) -> None:
        """Stop everything in the order of the flow; the trainer makes a version of its last step."""
        first = [name for name in self.services if name not in {TRAINER, "second-trainer"}]
        self.stop(*first)
        self.stop(*self.services)

    def _start(self, name: str, *arguments: str, **environment: str) -> str:
        self.supervisor.start(name, *arguments, **environment)
        return name

    def _is_ready(self, name: str) -> bool:
        endpoint = self.supervisor.endpoints().get(name)
        return endpoint is not None and bool(scrape({name: endpoint}).get("onerec_ready"))

    def _signal(self, name: str, number: signal.Signals) -> None:
        service = self.supervisor.services[name]
        if service.process is not None and service.running:
            service.process.send_signal(number)

    def _publish_past(self) -> None:
        """Topics, items, and the histories from before the log."""
        kafka = self.settings.kafka
        admin.wait_for_broker(kafka, 30.0)
        topics.create(kafka)
        writer = RecordWriter(kafka)
        messages: Any = (
            *item_messages(self.log.items, time.time_ns() // 1_000_000),
            *history_messages(self.log.histories),
        )
        for topic, key, timestamp_ms, record in messages:
            writer.send(topic, key, record, timestamp_ms=timestamp_ms)
        writer.flush(FLUSH_S)
