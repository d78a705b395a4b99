"""The joiner as a process on a real broker, what it is given and what it gives out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from onerec.kafka import admin, clients
from onerec.kafka.registry import codec
from onerec.metrics import Samples, read_metrics
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import ACTIONS, IMPRESSIONS, Topic, id_key
from tests.kafka.reading import followed
from tests.stream.joiner.events import Event

ROOT = Path(__file__).parents[3]
PATIENCE_S = 120.0


class JoinerProcess:
    """`python -m stream joiner` with a state folder of its own. A context manager; leaving it kills what still runs."""

    def __init__(
        self, kafka: KafkaSettings, directory: Path, *, instance: str = "0", python_path: str = "", **joiner: object
    ) -> None:
        self.directory = directory
        self.instance = instance
        self.log = directory / f"joiner-{instance}.log"
        paths = os.pathsep.join(filter(None, (python_path, str(ROOT))))
        self._environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ONEREC_LOG": "INFO"}
        lines = ["[kafka]", *(f"{name} = {_toml(value)}" for name, value in kafka.model_dump(mode="json").items())]
        lines += ["[store]", f'state_dir = "{directory / "state"}"', "[stream.joiner]", f'instance = "{instance}"']
        lines += [f"{name} = {_toml(value)}" for name, value in joiner.items()]
        self._config = directory / f"joiner-{instance}.toml"
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text("\n".join(line for line in lines if not line.endswith("= None")))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> JoinerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def start(self) -> None:
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "stream", "joiner", "--config", str(self._config)]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit code, once it ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def has_ended_within(self, timeout_s: float) -> bool:
        """Whether it ends by itself in that time."""
        try:
            self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def output(self) -> str:
        """What the newest process has logged."""
        with self.log.open() as log:
            log.seek(self._offset)
            return log.read()

    def metrics(self) -> Samples:
        """Its metrics; none while it does not answer."""
        found = re.search(r"metrics on http://\S+:(\d+)/", self.output())
        return Samples(read_metrics(int(found[1]), timeout_s=PATIENCE_S)) if found else Samples()

    def peak_mb(self) -> float:
        """The most resident memory that it has had."""
        assert self._process is not None
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))

    def until(self, condition: Callable[[Samples], bool]) -> Samples:
        """Wait until its metrics fulfil the condition."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            samples = self.metrics()
            if condition(samples):
                return samples
            assert self._process is not None
            assert self._process.poll() is None, self.output()
            assert time.monotonic() < deadline_s, self.output()
            time.sleep(0.05)

    def until_ready(self) -> None:
        self.until(lambda samples: samples.get("onerec_ready") == 1)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{name}" = {_toml(one)}' for name, one in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


class Feeder:
    """Publishes events."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer = clients.producer(kafka)
        self._codecs = {topic.name: codec(kafka, topic) for topic in (IMPRESSIONS, ACTIONS)}

    def publish(self, events: Iterable[Event]) -> None:
        for event in events:
            topic = IMPRESSIONS if isinstance(event, Impression) else ACTIONS
            value = self._codecs[topic.name].encode(event)
            self.publish_raw(topic, id_key(event.user_id), value, event.time_ms)
        self.flush()

    def publish_raw(self, topic: Topic, key: bytes, value: bytes | None, time_ms: int = 1, partition: int = -1) -> None:
        name = clients.topic_name(self._kafka, topic)
        self._producer.produce(name, value, key, partition, timestamp=max(1, time_ms))
        self._producer.poll(0)

    def publish_to(self, partition: int, event: Event) -> None:
        """One event to a partition of our choice."""
        topic = IMPRESSIONS if isinstance(event, Impression) else ACTIONS
        value = self._codecs[topic.name].encode(event)
        self.publish_raw(topic, id_key(event.user_id), value, event.time_ms, partition)

    def flush(self) -> None:
        assert self._producer.flush(PATIENCE_S) == 0


def records(kafka: KafkaSettings, topic: Topic) -> list[Any]:
    """All records of a topic as a committed reader gets them, transaction markers or not."""
    name = clients.topic_name(kafka, topic)
    bounds = {(name, partition): found for partition, found in admin.bounds(kafka, topic).items()}
    consumer = clients.consumer(kafka, enable_partition_eof=True)
    consumer.assign([TopicPartition(*part, low) for part, (low, _) in bounds.items()])
    topic_codec = codec(kafka, topic)
    left = {part for part, (low, high) in bounds.items() if low < high}
    found = []
    while left:
        for message in consumer.consume(1000, 0.1):
            error = message.error()
            part = (name, message.partition() or 0)
            if error is None:
                found.append(topic_codec.decode(message.value()))
            elif error.code() == KafkaError._PARTITION_EOF and (message.offset() or 0) >= bounds[part][1]:
                left.discard(part)
    consumer.close()
    return found


def eventually(check: Callable[[], bool], what: str) -> None:
    """Wait until it is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)


def until_records(kafka: KafkaSettings, topic: Topic, count: int, what: str) -> None:
    """Wait until a committed reader has so many records of a topic."""
    with followed(kafka, topic) as found:
        eventually(lambda: len(found()) >= count, what)
