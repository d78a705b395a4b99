"""Runs one joiner alone on its core, the broker on the other, and tells how fast it was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.brokers import environment_of_services
from bench.environments import PeerMissingError, cache_folder
from bench.joining.feed import make_topics
from bench.joining.pinning import cores, pinned
from bench.joining.progress import Rates, follow
from bench.turns import ROOT
from chaos.configuration import toml
from chaos.kafka_process import KafkaProcess, kafka_home
from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.processes import die_with_parent
from onerec.settings import KafkaSettings

PARTITIONS = 4
TRANSACTION_MS = 400
TIMEOUT_S = 180.0
STOP_S = 15.0
PEERS = "ONEREC_BENCH_PEERS"
JAVA_RATES = re.compile(r"all (\d+) ev/s; second half (\d+) ev/s")
JAVA_OPENS = tuple(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("util", "lang", "nio", "time"))
RULES = {
    "session_items": 5,
    "session_gap_ms": 1_800_000,
    "feedback_window_ms": 600_000,
    "history_items": 64,
    "idle_close_s": 86_400.0,
    "known_items_only": False,
    "transaction_ms": TRANSACTION_MS,
}


@dataclass(frozen=True, slots=True)
class Ground:
    """A broker on one core, and room for a joiner on the other."""

    servers: str
    directory: Path
    home: Path
    joiner_core: int
    broker_core: int

    def settings(self, prefix: str) -> KafkaSettings:
        """Of a system of its own on this broker."""
        return KafkaSettings(
            bootstrap_servers=self.servers, topic_prefix=prefix, group_prefix=prefix, partitions=PARTITIONS
        )


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Raises PeerMissingError where there is no Apache Kafka or no second core."""
    joiner_core, broker_core = cores()
    try:
        home = kafka_home()
    except DependencyMissingError as error:
        raise PeerMissingError(error.problem, error.remedy) from error
    with ExitStack() as stack:
        with pinned(broker_core):
            process = stack.enter_context(KafkaProcess(home, directory / "broker"))
        yield Ground(process.bootstrap_servers, directory, home, joiner_core, broker_core)


def ours(place: Ground, kafka: KafkaSettings, events: int) -> Rates:
    """`python -m stream joiner`, state and changelog on, exactly once."""
    directory = place.directory / kafka.topic_prefix
    directory.mkdir(parents=True)
    config = directory / "onerec.toml"
    tables = {
        "kafka": kafka.model_dump(mode="json", exclude_none=True),
        "store": {"state_dir": str(directory / "state")},
        "stream": {"joiner": RULES},
    }
    config.write_text(toml(tables))
    topics = [f"{kafka.topic_prefix}{name}" for name in ("impressions", "actions")]
    command = [sys.executable, "-m", "stream", "joiner", "--config", str(config)]
    return _python(place, command, directory / "joiner.log", f"{kafka.group_prefix}joiner", topics, events)


def faust(place: Ground, prefix: str, events: int) -> Rates:
    """Faust's table update and send, on the impressions."""
    name = f"faust-{uuid.uuid4().hex[:8]}"
    make_topics(place.settings(""), [f"{name}-sessions"])
    state = str(place.directory / name)
    command = [sys.executable, "-m", "bench.joining.faust_join", place.servers, prefix, name, state]
    return _python(place, command, place.directory / f"{name}.log", name, [f"{prefix}impressions"], events)


def quixstreams(place: Ground, python: str, prefix: str, events: int) -> Rates:
    """Quixstreams' join."""
    name = f"quix-{uuid.uuid4().hex[:8]}"
    state = str(place.directory / name)
    command = [python, "-m", "bench.joining.quix_join", place.servers, prefix, name, state]
    topics = [f"{prefix}{kind}" for kind in ("impressions", "actions")]
    return _python(place, command, place.directory / f"{name}.log", name, topics, events)


def kafka_streams(place: Ground, events: int) -> Rates:
    """Kafka Streams with RocksDB, changelog and exactly_once_v2."""
    folder = _java_folder("kafka-streams")
    libraries = f"{folder}/libs/*:{place.home}/libs/*"
    arguments = [place.servers, f"streams-{uuid.uuid4().hex[:8]}", "exactly_once_v2", str(TRANSACTION_MS), str(events)]
    return _java(place, folder, "KafkaStreamsJoiner", libraries, ("-Xms1g", "-Xmx2g"), arguments)


def flink(place: Ground, events: int) -> Rates:
    """Flink with state on the heap and two-phase commit."""
    folder = _java_folder("flink")
    arguments = [place.servers, "hashmap", str(TRANSACTION_MS), str(events)]
    return _java(place, folder, "FlinkJoiner", f"{folder}/libs/*", (*JAVA_OPENS, "-Xms1g", "-Xmx3g"), arguments)


def _python(  # noqa: PLR0917 - all are told apart by their types and names
    place: Ground, command: Sequence[str], log: Path, group: str, topics: Sequence[str], events: int
) -> Rates:
    process = _start(place, command, log)
    try:
        with pinned(place.broker_core):  # who looks does not disturb
            return follow(
                process,
                log,
                bootstrap_servers=place.servers,
                group=group,
                topics=topics,
                partitions=PARTITIONS,
                events=events,
                timeout_s=TIMEOUT_S,
            )
    finally:
        _stop(process)


def _java_folder(name: str) -> Path:
    peers = os.environ.get(PEERS)
    if not peers or not (Path(peers) / name).is_dir():
        raise PeerMissingError(
            f"{PEERS} names no folder with {name}.", "It holds the peer's Java class and, in libs/, its jars."
        )
    if shutil.which("javac") is None:
        raise PeerMissingError("There is no javac.", "Install a JDK of 17 or newer.")
    return Path(peers) / name


def _java(  # noqa: PLR0917 - as above
    place: Ground, folder: Path, name: str, libraries: str, options: Sequence[str], arguments: Sequence[str]
) -> Rates:
    classes = cache_folder() / name
    classes.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["javac", "-nowarn", "-cp", libraries, "-d", str(classes), str(folder / f"{name}.java")],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise PeerMissingError(f"{name} does not compile: {made.stderr[-300:]}", f"Mend {folder}.")
    log = place.directory / f"{name}-{uuid.uuid4().hex[:8]}.log"
    scratch = (place.directory / "java").absolute()  # Flink makes a URI of it
    scratch.mkdir(exist_ok=True)
    heap = ("-XX:+UseSerialGC", f"-Djava.io.tmpdir={scratch}")
    command = ["java", *options, *heap, "-cp", f"{classes}:{libraries}", name, *arguments]
    process = _start(place, command, log)
    try:
        process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _stop(process)
    told = JAVA_RATES.search(log.read_text(errors="replace"))
    if told is None:
        raise CheckFailedError(
            f"{name} ended with code {process.returncode} and has not read {arguments[-1]} events.", f"See {log}."
        )
    return Rates(float(told[1]), float(told[2]), int(arguments[-1]))


def _start(place: Ground, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    environment = environment_of_services() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ONEREC_LOG": "INFO"}
    with pinned(place.joiner_core), log.open("wb") as to:
        return subprocess.Popen(
            list(command),
            cwd=ROOT,
            env=environment,
            stdout=to,
            stderr=to,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
