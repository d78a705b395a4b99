"""Three nodes of Apache Kafka in containers, on a network of their own, from which anything can be cut off.

Needs a Docker engine on this Linux machine: the nodes are reached by their addresses on the engine's bridge. The
image is the one that `ONEREC_TEST_KAFKA_IMAGE` names, else the published one.
"""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.cluster import JAVA_OPTIONS, NODES, PROPERTIES
from chaos.kafka_process import DEFAULTS, HEAP, new_cluster_id
from chaos.leaders import Leaders
from onerec.errors import DependencyMissingError
from onerec.settings import KafkaSettings

LOG = logging.getLogger(__name__)
IMAGE, DEFAULT_IMAGE = "ONEREC_TEST_KAFKA_IMAGE", "confluentinc/cp-kafka:8.2.0"
ENGINE_TIMEOUT_S = 60
FREEZE_TRIES = 2
PORT, CONTROLLER_PORT = 9092, 9093
FIRST_HOST, PROGRAM_HOST = 10, 20
"""Node 1 is the network's host 11, and so on; programs come from 20 on."""
HOST = "/host"
ROOT = Path(__file__).resolve().parents[1]
NO_ENGINE = "no Docker engine answers"


def engine(timeout_s: int = ENGINE_TIMEOUT_S) -> Any | None:
    """A client of the Docker engine, None where none answers. Raises ImportError without the package docker."""
    import docker  # noqa: PLC0415 - a development dependency

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker 7.2 leaves the socket open that found no engine
        try:
            client = docker.from_env(timeout=timeout_s)
            client.ping()
        except (docker.errors.DockerException, OSError):
            return None
        finally:
            gc.collect()
    return client


def engine_missing() -> str | None:
    """Why no containers can be started; None where a Docker engine answers and has the image."""
    try:
        import docker  # noqa: PLC0415 - a development dependency
    except ImportError:
        return "the package docker is not installed (it comes with the extra dev)"
    client = engine()
    if client is None:
        return NO_ENGINE
    try:
        client.images.get(image())
    except docker.errors.ImageNotFound:
        return f"the Docker engine does not have the image {image()} ({IMAGE})"
    finally:
        client.close()
    return None


def image() -> str:
    """The image of the nodes."""
    return os.environ.get(IMAGE) or DEFAULT_IMAGE


class ContainerCluster:
    """Nodes 1, 2 and 3: `with ContainerCluster() as …`. Leaving it removes all containers and the network."""

    def __init__(self) -> None:
        """Raises DependencyMissingError where there is no engine or no image."""
        import docker  # noqa: PLC0415 - a development dependency

        missing = engine_missing()
        if missing:
            raise DependencyMissingError(f"No containers: {missing}.", "Start a Docker engine and pull the image.")
        self._client: Any = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        self._name = f"onerec-chaos-{uuid.uuid4().hex[:8]}"
        self._containers: dict[str, Any] = {}
        self._addresses: dict[str, str] = {}
        self._stopped: set[str] = set()
        self._stack = ExitStack()
        self.kafka: KafkaSettings
        self.leaders: Leaders

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._client.close)
            self._network = self._new_network()
            stack.callback(self._network.remove)
            stack.callback(self._remove_containers)
            cluster_id = new_cluster_id()
            for node in NODES:
                self._run(node_name(node), FIRST_HOST + node, environment=self._node_environment(node, cluster_id))
            servers = ",".join(f"{self._address(FIRST_HOST + node)}:{PORT}" for node in NODES)
            self.kafka = KafkaSettings(bootstrap_servers=servers, replication_factor=len(NODES))
            self.leaders = Leaders(self.kafka)
            self.leaders.wait_alive(NODES)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run_program(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], writable: Path) -> None:
        """Run `python <arguments>` in a container of the cluster's network, with this machine's files.

        The container's root is this machine's, read-only, so that interpreter, libraries and code are the same; only
        the folder `writable` can be written to.
        """
        folder = str(writable.resolve())
        self._run(
            name,
            PROGRAM_HOST + len(self._containers),
            environment=dict(environment) | {"PYTHONPATH": str(ROOT), "TMPDIR": folder},
            entrypoint=["chroot", f"--userspec={os.getuid()}:{os.getgid()}", HOST, sys.executable],
            command=list(arguments),
            volumes={"/": {"bind": HOST, "mode": "ro"}, folder: {"bind": HOST + folder, "mode": "rw"}},
        )

    def cut(self, name: str) -> None:
        """Off the network: what is sent to it or by it is lost, and no connection is closed."""
        self._network.disconnect(self._containers[name])

    def join(self, name: str) -> None:
        """On the network again, under the address that it had."""
        self._network.connect(self._containers[name], ipv4_address=self._addresses[name])

    def pause(self, name: str) -> None:
        """Nothing in it runs; its kernel goes on accepting what is sent to it.

        On a busy machine the engine may fail to freeze a process of many threads: then SIGSTOP does as much.
        """
        import docker  # noqa: PLC0415 - a development dependency

        for _ in range(FREEZE_TRIES):
            try:
                self._containers[name].pause()
            except docker.errors.APIError as error:
                LOG.info("%s is not frozen: %s", name, error.explanation)
            else:
                return
        self._containers[name].kill(signal="SIGSTOP")
        self._stopped.add(name)

    def unpause(self, name: str) -> None:
        """It wakes up and knows nothing of what happened."""
        if name in self._stopped:
            self._stopped.remove(name)
            self._containers[name].kill(signal="SIGCONT")
        else:
            self._containers[name].unpause()

    def exit_code(self, name: str, timeout_s: float) -> int | None:
        """With what it ended; None where it still runs after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._containers[name].reload()
            state = self._containers[name].attrs["State"]
            if not state["Running"]:
                return int(state["ExitCode"])
            if time.monotonic() > deadline_s:
                return None
            time.sleep(0.2)

    def output(self, name: str) -> str:
        """What it has printed."""
        printed: bytes = self._containers[name].logs()
        return printed.decode(errors="replace")

    def _new_network(self) -> Any:
        """A network with addresses given by hand, which the engine allows only where it is told the subnet."""
        from docker.types import IPAMConfig, IPAMPool  # noqa: PLC0415 - a development dependency

        proposed = self._client.networks.create(self._name, driver="bridge")
        proposed.reload()
        subnet = proposed.attrs["IPAM"]["Config"][0]["Subnet"]
        proposed.remove()
        self._base = ipaddress.ip_network(subnet).network_address
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
        return self._client.networks.create(self._name, driver="bridge", ipam=ipam)

    def _address(self, host: int) -> str:
        return str(self._base + host)

    def _run(self, name: str, host: int, **options: Any) -> None:
        container = self._client.containers.create(image(), name=f"{self._name}-{name}", **options)
        self._containers[name], self._addresses[name] = container, self._address(host)
        self._client.networks.get("bridge").disconnect(container)
        self.join(name)
        container.start()

    def _node_environment(self, node: int, cluster_id: str) -> dict[str, str]:
        address = self._address(FIRST_HOST + node)
        properties = (
            DEFAULTS
            | PROPERTIES
            | {
                "node.id": str(node),
                "controller.quorum.voters": ",".join(
                    f"{one}@{self._address(FIRST_HOST + one)}:{CONTROLLER_PORT}" for one in NODES
                ),
                "listeners": f"PLAINTEXT://0.0.0.0:{PORT},CONTROLLER://0.0.0.0:{CONTROLLER_PORT}",
                "advertised.listeners": f"PLAINTEXT://{address}:{PORT}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            }
        )
        named = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in properties.items()}
        return named | {"CLUSTER_ID": cluster_id, "KAFKA_HEAP_OPTS": HEAP, "KAFKA_OPTS": JAVA_OPTIONS}

    def _remove_containers(self) -> None:
        for container in self._containers.values():
            container.remove(force=True, v=True)


def node_name(node: int) -> str:
    """Name of a node's container, for `cut`, `pause` and so on."""
    return f"node-{node}"
