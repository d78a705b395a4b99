"""Three nodes of Apache Kafka as processes on loopback: every record on all of them, written once two have it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.kafka_process import KafkaProcess, kafka_home, new_cluster_id
from chaos.leaders import Leaders
from onerec.settings import KafkaSettings

NODES = (1, 2, 3)
SESSION_TIMEOUT_MS = 3000
"""How soon the others notice that a node is gone."""
PROPERTIES = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "broker.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "broker.heartbeat.interval.ms": str(SESSION_TIMEOUT_MS // 3),
    "replica.lag.time.max.ms": "5000",
}
"""On top of those of a single node."""
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1"
"""Nodes that live for minutes start with half the work where their code is compiled quickly, not well."""


class KafkaCluster:
    """Nodes 1, 2 and 3, brokers and controllers: `with KafkaCluster(folder) as …`."""

    def __init__(self, directory: Path) -> None:
        """`directory` takes logs and data. Raises DependencyMissingError where KAFKA_HOME or Java is missing."""
        home = kafka_home()
        self._nodes = {
            node: KafkaProcess(
                home, directory / f"node-{node}", PROPERTIES | {"node.id": str(node)}, java_options=JAVA_OPTIONS
            )
            for node in NODES
        }
        servers = ",".join(node.bootstrap_servers for node in self._nodes.values())
        self.kafka = KafkaSettings(bootstrap_servers=servers, replication_factor=len(NODES))
        self.leaders = Leaders(self.kafka)

    def __enter__(self) -> Self:
        cluster_id = new_cluster_id()
        voters = ",".join(f"{node}@{process.controller}" for node, process in self._nodes.items())
        with ExitStack() as stack:
            stack.callback(self.stop)
            with ThreadPoolExecutor() as threads:
                list(threads.map(lambda process: process.prepare(cluster_id, voters), self._nodes.values()))
            for process in self._nodes.values():
                process.launch()  # by this thread: a child ends with the thread that started it
            self.leaders.wait_alive(NODES)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def kill(self, node: int) -> None:
        """SIGKILL."""
        self._nodes[node].kill()

    def start(self, node: int) -> None:
        """Start a node again on its data; `leaders.wait_in_sync` waits until it has caught up."""
        self._nodes[node].launch()

    def stop(self) -> None:
        """End all nodes; their data stays."""
        for process in self._nodes.values():
            process.kill()
