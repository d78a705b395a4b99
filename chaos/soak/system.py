"""The running system of a soak: services, an endless log, restarts one after the other, and the end of it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.soak.observe import Observer
from chaos.soak.topics import create_topics
from onerec.cli.up import SERVICES
from onerec.demo.supervisor import ServiceFailedError, Supervisor
from onerec.kafka.admin import wait_for_broker
from onerec.metrics import Samples, scrape
from onerec.settings import Settings

LOG = logging.getLogger(__name__)
REPLAY = "replay"
RESTARTED = ("joiner", "trainer", "worker", "sampler", "tokenizer")
"""In this order, one at a time."""
LOOK_EVERY_S = 5.0
TICK_S = 0.2
JOB_TIMEOUT_S = 900.0
READY_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 180.0
AUDIT_TIMEOUT_S = 900.0
MAX_UNANSWERED = 48
ASK_AHEAD_MS = 300_000
LOG_DAYS = 10
"""How many days the log spans; each lap moves it by so many, so that its visits and sessions are new ones."""
WAITING = (
    "stream_joiner_lag_events",
    "stream_joiner_open_impressions",
    "stream_joiner_open_sessions",
    "trainer_lag_events",
    "inference_worker_lag_events",
    "inference_sampler_pending",
)
DONE = {
    "answers": ("inference_worker_requests_total", "worker"),
    "sessions": ("trainer_sessions_total", "trainer"),
    "pairs": ("inference_sampler_pairs_total", "sampler"),
}


@dataclass(slots=True)
class Soak:
    """One run on a broker that is there."""

    settings: Settings
    supervisor: Supervisor
    observer: Observer
    directory: Path
    broker_pid: int
    restart_every_s: float
    restarts: Counter[str] = field(default_factory=Counter)
    laps: int = 0
    seconds: float = 0.0
    _done: Counter[str] = field(default_factory=Counter)
    """Counters of the lives that have ended."""
    _samples: Samples = field(default_factory=Samples)
    _look_at_s: float = 0.0

    def run(self, minutes: float) -> None:
        """Catalogue, seed and services; then load and restarts for so long; then it comes to rest and is stopped."""
        self._start()
        began_s = time.monotonic()
        victims = itertools.cycle(RESTARTED)
        restart_at_s = began_s + self.restart_every_s
        while time.monotonic() < began_s + 60.0 * minutes:
            self._load()
            if time.monotonic() >= restart_at_s:
                self._restart(next(victims))
                restart_at_s = time.monotonic() + self.restart_every_s
            self._tick()
        self.seconds = time.monotonic() - began_s
        self._come_to_rest()

    def work(self) -> dict[str, float]:
        """What was done under load: counts, and restarts."""
        return {**self._counts(), "restarts": self.restarts.total(), "laps": self.laps, "seconds": self.seconds}

    def audit(self) -> dict[str, Any]:
        """What `python -m audit` finds in the topics; empty where it could not be made."""
        file = self.directory / "audit.json"
        environment = {**os.environ, "ONEREC_CONFIG": str(self.directory / "onerec.toml")}
        command = [sys.executable, "-m", "audit", "--json", str(file)]
        with (self.directory / "logs" / "audit.log").open("wb") as log:
            subprocess.run(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=AUDIT_TIMEOUT_S, check=False
            )
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def _start(self) -> None:
        wait_for_broker(self.settings.kafka, 30.0)
        create_topics(self.settings.kafka)
        self.supervisor.run("import", "stream", "replay", "--only", "items,histories", timeout_s=JOB_TIMEOUT_S)
        self.supervisor.run("codebook", "stream", "codebook", timeout_s=JOB_TIMEOUT_S)
        for name, arguments in SERVICES.items():
            self.supervisor.start(name, *arguments)
            self._wait_ready(name)

    def _load(self) -> None:
        """Keep the log flowing: when it has ended it is sent again, ten days later."""
        replay = self.supervisor.services.get(REPLAY)
        if replay is not None and replay.running:
            return
        if replay is not None:
            self.supervisor.finished(replay)
            self.laps += 1
        self.supervisor.start(
            REPLAY,
            *("stream", "replay", "--only", "events", "--shift-days", str(self.laps * LOG_DAYS)),
            *("--max-unanswered", str(MAX_UNANSWERED), "--ask-ahead-ms", str(ASK_AHEAD_MS)),
        )

    def _restart(self, name: str) -> None:
        LOG.info("restarting %s after %s", name, {what: int(count) for what, count in self._counts().items()})
        self._look()
        for what, (metric, service) in DONE.items():
            if service == name:
                self._done[what] += int(self._samples.get(metric, job=service))
        self.supervisor.stop([name], timeout_s=STOP_TIMEOUT_S)
        self.supervisor.start(name, *SERVICES[name])
        self.restarts[name] += 1
        self._look()
        self._wait_ready(name)

    def _come_to_rest(self) -> None:
        self.supervisor.stop([REPLAY], timeout_s=STOP_TIMEOUT_S)
        deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < deadline_s:
            self._tick()
            if not sum(self._samples.get(name) for name in WAITING):
                break
        else:
            LOG.warning("the system has not come to rest within %.0f s", DRAIN_TIMEOUT_S)
        for name in (*RESTARTED[:1], *RESTARTED[2:], "trainer"):  # the trainer last: it learns what is left
            self.supervisor.stop([name], timeout_s=STOP_TIMEOUT_S)

    def _wait_ready(self, name: str) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._samples.get("onerec_ready", job=name):
            if time.monotonic() > deadline_s:
                raise ServiceFailedError(f"{name} did not get ready.", f"See its log in {self.directory}/logs.")
            self._tick()
        LOG.info("%s is ready", name)

    def _tick(self) -> None:
        self.supervisor.check(except_for=REPLAY)
        if time.monotonic() >= self._look_at_s:
            self._look()
        time.sleep(TICK_S)

    def _look(self) -> None:
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        self._samples = scrape(self.supervisor.endpoints())
        processes = self.supervisor.process_ids() | {self.broker_pid: "broker"}
        self.observer.look(processes, self._samples)

    def _counts(self) -> dict[str, float]:
        return {
            what: self._done[what] + self._samples.get(metric, job=service) for what, (metric, service) in DONE.items()
        }


def folders_of(directory: Path) -> dict[str, Path]:
    """What a run keeps on disk, by name."""
    state = directory / "state"
    return {
        "joiner state": state / "joiner",
        "trainer checkpoints": state / "trainer",
        "worker state": state / "worker",
        "sampler state": state / "sampler",
        "tokenizer state": state / "tokenizer",
        "weights store": directory / "store",
        "broker log": directory / "broker",
        "service logs": directory / "logs",
    }
