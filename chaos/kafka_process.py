"""Apache Kafka as a process of this machine, from an unpacked download (`KAFKA_HOME`)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from onerec.errors import DependencyMissingError
from onerec.kafka.admin import wait_for_broker
from onerec.processes import LOOPBACK, die_with_parent, free_port
from onerec.settings import KafkaSettings

HOME = "KAFKA_HOME"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
HEAP = "-Xms64m -Xmx320m"
DEFAULTS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    # Who stays away for longer than its transaction's timeout is found out soon, not after ten seconds more.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    "log.initial.task.delay.ms": "100",
    "log.retention.check.interval.ms": "200",
}


def kafka_home() -> Path:
    """The unpacked Apache Kafka of KAFKA_HOME. Raises DependencyMissingError that says what is missing."""
    home = os.environ.get(HOME)
    if not home:
        raise DependencyMissingError(f"{HOME} is not set.", "Unpack Apache Kafka and name its folder there.")
    if not (Path(home) / "bin" / "kafka-server-start.sh").is_file():
        raise DependencyMissingError(f"{HOME}={home} holds no Kafka.", "Name the folder that has bin/ and libs/.")
    if shutil.which("java") is None:
        raise DependencyMissingError("There is no Java.", "Apache Kafka needs Java 17 or newer.")
    return Path(home)


def new_cluster_id() -> str:
    """A fresh one, as Kafka wants it."""
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()


class KafkaProcess:
    """One node, broker and controller, with a fresh cluster id: `with KafkaProcess(home, folder) as …`.

    Between `stop` or `kill` and the next `start` its data and its port stay the same.
    """

    def __init__(
        self, home: Path, directory: Path, properties: Mapping[str, str] | None = None, *, java_options: str = ""
    ) -> None:
        """`directory` takes its log and its data; `properties` of the broker win over the defaults."""
        self._home = home
        self._directory = directory
        self._java_options = java_options
        self._process: subprocess.Popen[bytes] | None = None
        self._port, self._controller = free_port(), free_port()
        self._properties = self._own_properties() | dict(properties or {})
        self.bootstrap_servers = f"{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        if self._process is None:
            raise RuntimeError("Apache Kafka does not run")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the broker prints."""
        return self._directory / "kafka.log"

    @property
    def controller(self) -> str:
        """Host and port of its controller."""
        return f"{LOOPBACK}:{self._controller}"

    def __enter__(self) -> Self:
        self.prepare()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def prepare(self, cluster_id: str | None = None, voters: str = "") -> None:
        """Make its folder: a cluster of its own, or one node of the cluster whose controllers `voters` lists."""
        self._directory.mkdir(parents=True, exist_ok=True)
        quorum = {
            "controller.quorum.voters" if voters else "controller.quorum.bootstrap.servers": voters or self.controller
        }
        lines = (f"{name}={value}" for name, value in (self._properties | quorum).items())
        self._configuration.write_text("\n".join(lines) + "\n")
        self._format(cluster_id or new_cluster_id(), *([] if voters else ["--standalone"]))

    def start(self) -> None:
        """Start it on the data that it has, and wait until it answers."""
        self.launch()
        try:
            wait_for_broker(KafkaSettings(bootstrap_servers=self.bootstrap_servers), START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """As `start`, but do not wait: a node of a cluster answers when most of them are there."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._home / "bin" / "kafka-server-start.sh", self._configuration],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
            )

    def stop(self) -> None:
        """End it in order; its data stays in the folder."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: what it had not written to the log's files is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def _configuration(self) -> Path:
        return self._directory / "server.properties"

    def _own_properties(self) -> dict[str, str]:
        broker = f"PLAINTEXT://{LOOPBACK}:{self._port}"
        return DEFAULTS | {
            "listeners": f"{broker},CONTROLLER://{self.controller}",
            "advertised.listeners": broker,
            "log.dirs": str(self._directory.absolute() / "log"),
        }

    def _format(self, cluster_id: str, *options: str) -> None:
        command: list[str | Path] = [self._home / "bin" / "kafka-storage.sh", "format", *options]
        command += [f"--cluster-id={cluster_id}", "--config", self._configuration]  # an id may begin with a dash
        command += self._format_options()
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kafka-storage.sh format failed: {done.stdout}{done.stderr}")

    def _format_options(self) -> list[str]:
        """What else `kafka-storage.sh format` is told."""
        return []

    def _environment(self) -> dict[str, str]:
        options = f"{os.environ.get('KAFKA_OPTS', '')} {self._java_options}".strip()
        heap = {"KAFKA_HEAP_OPTS": os.environ.get("KAFKA_HEAP_OPTS", HEAP)}
        return os.environ | heap | {"KAFKA_OPTS": options, "LOG_DIR": str(self._directory)}
