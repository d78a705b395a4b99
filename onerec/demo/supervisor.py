"""Starts services as processes, restarts what crashed, stops everything in order.

A service that ends with the exit codes for bad settings or a missing dependency is not restarted: a person
must mend that. Children die with this process, even when it gets SIGKILL.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onerec.errors import DependencyMissingError, ExitCode, OneRecError
from onerec.interrupts import raise_if_interrupted
from onerec.processes import die_with_parent, free_port

LOG = logging.getLogger(__name__)
NOT_RESTARTED = (ExitCode.BAD_ARGUMENTS, ExitCode.DEPENDENCY_MISSING)
MAX_RESTARTS = 5
"""In a row; who has run for `HEALTHY_S` since begins anew."""
HEALTHY_S = 60.0
STOP_TIMEOUT_S = 15.0


class ServiceFailedError(OneRecError):
    """A service ended and restarting it would not help."""


@dataclass(slots=True)
class Service:
    """One service: how to start it, where it logs, and what became of it."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    metrics_port: int
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    restart_at: float = 0.0
    started_s: float = 0.0
    killed: bool = False
    stopping: bool = field(default=False)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    if not path.is_file():
        return ""
    with path.open(errors="replace") as file:
        return "".join(deque(file, lines))


class Supervisor:
    """The processes of one run. Use as a context manager: leaving it stops them all."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.services: dict[str, Service] = {}
        self._environment = dict(environment)
        self._lock = threading.Lock()

    def __enter__(self) -> Supervisor:
        """Nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything that still runs, the newest first."""
        self.stop(reversed(list(self.services)))

    def start(self, name: str, *arguments: str, **environment: str) -> Service:
        """Start `python -m <arguments>` as service `name`, with its own log, state folder and metrics port."""
        port = free_port()
        service = Service(
            name=name,
            arguments=(sys.executable, "-m", *arguments),
            environment={
                **self._environment,
                "ONEREC_METRICS__PORT": str(port),
                "ONEREC_STORE__STATE_DIR": str(self.directory / "state" / name),
                **environment,
            },
            log=self.directory / "logs" / f"{name}.log",
            metrics_port=port,
        )
        service.log.parent.mkdir(parents=True, exist_ok=True)
        self.services[name] = service
        self._spawn(service)
        return service

    def kill(self, name: str) -> None:
        """SIGKILL, as it comes from outside. `check` starts it again, and does not hold it against the service."""
        service = self.services[name]
        if service.process is not None:
            service.process.kill()
            service.process.wait()
        service.killed = True

    def _spawn(self, service: Service) -> None:
        service.started_s = time.monotonic()
        with service.log.open("ab") as log:
            service.process = subprocess.Popen(
                service.arguments,
                env={**os.environ, **service.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches us alone, so that we stop them in order
                preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
            )

    def run(
        self, name: str, *arguments: str, timeout_s: float, accepted: Collection[int] = (0,), **environment: str
    ) -> int:
        """Run a job to its end; its exit code. Raises ServiceFailedError with its log's end for one not `accepted`."""
        service = self.start(name, *arguments, **environment)
        deadline = time.monotonic() + timeout_s
        while service.running:
            self.check(except_for=name)
            if time.monotonic() > deadline:
                raise ServiceFailedError(f"{name} did not end within {timeout_s:.0f} s.", f"See {service.log}.")
            time.sleep(0.05)
        return self.finished(service, accepted)

    def finished(self, service: Service, accepted: Collection[int] = (0,)) -> int:
        """Take a job that has ended off the list; its exit code. Raises ServiceFailedError where it failed."""
        code = service.process.returncode if service.process else 0
        del self.services[service.name]
        if code not in accepted:
            raise ServiceFailedError(
                f"{service.name} ended with code {code}:\n{tail(service.log)}", f"See {service.log}."
            )
        return code

    def endpoints(self) -> dict[str, int]:
        """Metrics ports of the services that run, by name."""
        return {name: service.metrics_port for name, service in self.services.items() if service.running}

    def process_ids(self) -> dict[int, str]:
        """Names of the services that run, by process id."""
        return {service.process.pid: name for name, service in self.services.items() if service.process}

    def check(self, *, except_for: str = "") -> None:
        """Restart what crashed. Raises ServiceFailedError for what must not or need not be restarted.

        Raises KeyboardInterrupt where we were asked to stop and nobody has noticed.
        """
        raise_if_interrupted()
        with self._lock:
            for service in list(self.services.values()):
                if service.name != except_for and not service.stopping and not service.running:
                    self._restart(service)

    def _restart(self, service: Service) -> None:
        code = service.process.returncode if service.process else 0
        if service.restart_at == 0.0 and time.monotonic() - service.started_s >= HEALTHY_S:
            service.restarts = 0
        if code in NOT_RESTARTED:
            raise DependencyMissingError(f"{service.name} cannot run:\n{tail(service.log, 3)}", f"See {service.log}.")
        if service.restarts >= MAX_RESTARTS:
            raise ServiceFailedError(
                f"{service.name} crashed {service.restarts + 1} times, last with code {code}:\n{tail(service.log)}",
                f"See {service.log}.",
            )
        now = time.monotonic()
        if service.restart_at == 0.0:
            service.restart_at = now + (0.0 if service.killed else 0.5 * 2**service.restarts)
            LOG.warning("%s ended with code %d; it is started again", service.name, code)
        if now >= service.restart_at:
            service.restarts += not service.killed
            service.restart_at, service.killed = 0.0, False
            self._spawn(service)

    def stop(self, names: Iterable[str], *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, and SIGKILL to what has not ended in time; all at once."""
        chosen = [self.services[name] for name in names if name in self.services]
        for service in chosen:
            service.stopping = True
            if service.process is not None and service.running:
                service.process.terminate()
        deadline = time.monotonic() + timeout_s
        for service in chosen:
            if service.process is None:
                continue
            try:
                service.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                LOG.warning("%s did not end within %.0f s and is killed", service.name, timeout_s)
                service.process.kill()
                service.process.wait()
            self.services.pop(service.name, None)
