"""Apache Kafka as a process of this machine, from an unpacked download (`KAFKA_HOME`)."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from onerec.kafka.admin import wait_for_broker
from onerec.processes import LOOPBACK, die_with_parent, free_port
from onerec.settings import KafkaSettings

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
CONFIGURATION = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
listeners=PLAINTEXT://{host}:{port},SASL_PLAINTEXT://{host}:{secured},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},SASL_PLAINTEXT://{host}:{secured}
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.initial.task.delay.ms=100
log.retention.check.interval.ms=200
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
USER, PASSWORD = "trainer", "right"
"""May log in on the secured listener and then do nothing: no rule grants anything."""


class KafkaProcess:
    """One node, broker and controller, with a fresh cluster id: `with KafkaProcess(home, folder) as …`."""

    def __init__(self, home: Path, directory: Path) -> None:
        """`directory` takes its log and its data."""
        self._home = home
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._port, self._secured, self._controller = free_port(), free_port(), free_port()
        self.bootstrap_servers = f"{LOOPBACK}:{self._port}"
        self.secured_servers = f"{LOOPBACK}:{self._secured}"

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "server.properties"
        configuration.write_text(
            CONFIGURATION.format(
                host=LOOPBACK,
                port=self._port,
                secured=self._secured,
                controller=self._controller,
                folder=self._directory.absolute(),
                user=USER,
                password=PASSWORD,
            )
        )
        self._format(configuration)
        with (self._directory / "kafka.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._home / "bin" / "kafka-server-start.sh", configuration],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
            )
        try:
            wait_for_broker(KafkaSettings(bootstrap_servers=self.bootstrap_servers), START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; its data stays in the folder."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _format(self, configuration: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
        command: list[str | Path] = [self._home / "bin" / "kafka-storage.sh", "format", "--standalone"]
        command += [f"--cluster-id={cluster_id}", "--config", configuration]  # an id may begin with a dash
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kafka-storage.sh format failed: {done.stdout}{done.stderr}")

    def _environment(self) -> dict[str, str]:
        heap = {"KAFKA_HEAP_OPTS": os.environ.get("KAFKA_HEAP_OPTS", "-Xms64m -Xmx320m")}
        return os.environ | heap | {"LOG_DIR": str(self._directory)}
