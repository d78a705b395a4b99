"""Anybody with the `.avsc` files and an Avro library can write every topic for us and read every topic of ours."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas import definitions
from schemas.topics import IMPRESSIONS, TOPICS, Key, Topic, id_key
from tests.kafka.reading import read_all
from tests.schemas.examples import BY_TYPE, TIME_MS

pytestmark = pytest.mark.broker
OURS = [topic for topic in TOPICS if topic.record is not None]
COPIES = 5


def key_of(topic: Topic, record: Any) -> str:
    return "somewhere" if topic.key is Key.AS_IT_CAME else str(getattr(record, topic.key.value))


def example(topic: Topic) -> Any:
    assert topic.record is not None
    return BY_TYPE[topic.record]


def as_json(value: bytes) -> dict[str, str]:
    return {"bytes": value.decode("latin-1")}


def line(topic: Topic) -> str:
    """A record as the independent program writes and reads it."""
    record = example(topic)
    content = {"topic": topic.name, "key": key_of(topic, record), "time_ms": TIME_MS}
    return json.dumps(content | {"value": dataclasses.asdict(record)}, default=as_json, sort_keys=True)


def run_program(folder: Path, kafka: KafkaSettings, *command: str, given: str = "") -> str:
    """Run it where it can see its own file and the schemas only, isolated from this project's import path."""
    program = folder / "program.py"
    shutil.copy(Path(__file__).with_name("independent_program.py"), program)
    for schema in definitions.FOLDER.glob("*.avsc"):
        shutil.copy(schema, folder)
    done = subprocess.run(
        [sys.executable, "-I", program, folder, kafka.bootstrap_servers, kafka.topic_prefix, *command],
        input=given,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_writes_every_topic_and_we_read_it(kafka: KafkaSettings, tmp_path: Path) -> None:
    run_program(tmp_path, kafka, "produce", given="\n".join(line(topic) for topic in OURS for _ in range(COPIES)))
    got = read_all(kafka, *OURS)
    for topic in OURS:
        of_topic = [received for received in got if received.topic is topic]
        assert [received.record for received in of_topic] == [example(topic)] * COPIES
        assert {received.key for received in of_topic} == {key_of(topic, example(topic)).encode()}
        assert {received.timestamp_ms for received in of_topic} == {TIME_MS}


def test_we_write_every_topic_and_it_reads_it(kafka: KafkaSettings, tmp_path: Path) -> None:
    writer = RecordWriter(kafka)
    for topic in OURS:
        for _ in range(COPIES):
            writer.send(topic, key_of(topic, example(topic)).encode(), example(topic), timestamp_ms=TIME_MS)
    writer.flush(60)
    lines = run_program(tmp_path, kafka, "consume", str(len(OURS) * COPIES)).splitlines()
    read = sorted(json.dumps(json.loads(found), sort_keys=True) for found in lines)
    assert read == sorted(line(topic) for topic in OURS for _ in range(COPIES))


def test_users_keep_their_partition_whoever_writes(kafka: KafkaSettings, tmp_path: Path) -> None:
    users = range(30)
    lines = [json.loads(line(IMPRESSIONS)) | {"key": str(user)} for user in users]
    run_program(tmp_path, kafka, "produce", given="\n".join(json.dumps(content) for content in lines))
    writer = RecordWriter(kafka)
    for user in users:
        writer.send(IMPRESSIONS, id_key(user), example(IMPRESSIONS))
    writer.flush(60)
    partitions: dict[bytes, set[int]] = {}
    received = read_all(kafka, IMPRESSIONS)
    assert len(received) == 2 * len(users)
    for record in received:
        partitions.setdefault(record.key or b"", set()).add(record.partition)
    assert all(len(found) == 1 for found in partitions.values())
    assert {partition for found in partitions.values() for partition in found} == {0, 1}
