"""The tokenizer as a process on a real broker: kills, bad records, items that come while it runs, a new codebook."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from onerec.weights.folder import Folder
from schemas.records import DeadLetter, Item, ItemTokens
from schemas.topics import DEAD_LETTERS, ITEM_TOKENS, ITEMS, Topic, id_key
from stream.tokenizer import codebook as codebooks
from tests.stream.tokenizer.items import codebook, embeddings, item

pytestmark = pytest.mark.broker
PROGRAM = "from stream.__main__ import app; app()"
SLOW = """
import time
from stream.tokenizer import service
quick = service._Service._take
def take(*arguments):
    time.sleep(0.05)
    return quick(*arguments)
service._Service._take = take
"""
"""Twenty batches a second at most: whoever is to be killed in mid-stream is not done before."""


class Reading:
    """All records of a topic so far."""

    def __init__(self, kafka: KafkaSettings, topic: Topic) -> None:
        self.received: list[Received] = []
        self._follower = TopicFollower(kafka, topic, self.received.append, service="test")

    def until(self, holds: Callable[[], bool], log: Path) -> None:
        deadline = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < deadline, log.read_text()
            self._follower.poll(0.02)

    def drain(self) -> None:
        self._follower.catch_up(60)

    def close(self) -> None:
        self._follower.close()


class Stage:
    """A store with a codebook, a broker, and the tokenizer's process."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self.kafka = kafka
        self.store = Folder(str(folder / "store"))
        self.log = folder / "log"
        self._folder = folder
        self.tokens = Reading(kafka, ITEM_TOKENS)
        self.letters = Reading(kafka, DEAD_LETTERS)
        self._writer = RecordWriter(kafka)

    @contextmanager
    def tokenizer(self, max_batch: int = 512, *, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """`python -m stream tokenizer`, after the statements `before`."""
        own = self.kafka.model_dump(include=self.kafka.model_fields_set)
        environment = os.environ | {
            **{f"ONEREC_KAFKA__{name.upper()}": str(value) for name, value in own.items()},
            "ONEREC_STORE__URI": str(self._folder / "store"),
            "ONEREC_STORE__STATE_DIR": str(self._folder / "state"),
            "ONEREC_STREAM__TOKENIZER__MAX_BATCH": str(max_batch),
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as stderr:
            command = [sys.executable, "-c", before + PROGRAM, "tokenizer"]
            process = subprocess.Popen(command, env=environment, stderr=stderr)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def publish(self, items: Iterable[Item]) -> None:
        for each in items:
            self._writer.send(ITEMS, id_key(each.item_id), each)
        self._writer.flush(60)

    def publish_bytes(self, value: bytes) -> None:
        self._writer.producer.produce(self.kafka.topic_prefix + ITEMS.name, value, b"1")
        self._writer.flush(60)

    def records(self) -> list[ItemTokens]:
        return [received.record for received in self.tokens.received]

    def until_tokens(self, count: int, version: int = 1) -> None:
        """Wait until so many items have tokens of this codebook."""
        self.tokens.until(
            lambda: len({t.item_id for t in self.records() if t.codebook_version == version}) >= count, self.log
        )


@pytest.fixture
def stage(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(kafka, tmp_path)
    codebooks.save(made.store, codebook(60, codes=32))
    yield made
    made.tokens.close()
    made.letters.close()


def items(first: int, last: int) -> list[Item]:
    return [item(row, values) for row, values in enumerate(embeddings(2000)) if first <= row < last]


@pytest.mark.slow
def test_killed_in_mid_stream_every_item_has_one_id_and_no_id_two_items(stage: Stage) -> None:
    stage.publish(items(0, 1000))
    kills = 0
    for part in range(2):  # first while it catches up, then while Faust hands it what comes
        with stage.tokenizer(max_batch=4 + 12 * part, before=SLOW) as process:
            if part:
                stage.until_tokens(1000)
                stage.publish(items(1000, 2000))
            stage.until_tokens(1000 * part + 100)
            process.kill()
            process.wait()
        stage.tokens.drain()
        kills += len({tokens.item_id for tokens in stage.records()}) < 1000 * (part + 1)
    assert kills == 2, "a kill came too late to prove anything"
    with stage.tokenizer() as process:
        stage.until_tokens(2000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    given = defaultdict(set)
    for tokens in stage.records():
        given[tokens.item_id].add(tokens.codes)
    assert sorted(given) == list(range(2000))
    assert {len(codes) for codes in given.values()} == {1}
    assert len({next(iter(codes)) for codes in given.values()}) == 2000
    stored = codebooks.load(stage.store).stored()
    assert all(given[row] == {stored[row]} for row in range(60))


@pytest.mark.slow
def test_bad_items_go_to_dead_letters_and_good_ones_come_through(stage: Stage) -> None:
    good = items(0, 4)
    bad = [
        item(11, embeddings(1, width=5)[0]),
        item(12, np.array([0, np.nan, 0, 0], np.float32)),
        item(13, embeddings(1)[0], duration_ms=-5),
    ]
    reasons = {11: "wrong_width", 12: "non_finite", 13: "out_of_bounds"}
    stage.publish([good[0], *bad])
    stage.publish_bytes(b"\xc3\x01rubbish")
    stage.publish([good[1]])
    with stage.tokenizer() as process:
        stage.until_tokens(2)
        stage.publish([*bad, good[2]])  # and again while Faust reads
        stage.publish_bytes(b"rubbish")
        stage.publish([good[3]])
        stage.until_tokens(4)
        stage.letters.until(lambda: len(stage.letters.received) >= 8, stage.log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    letters: list[DeadLetter] = [received.record for received in stage.letters.received]
    assert {letter.service for letter in letters} == {"tokenizer"}
    assert {letter.topic for letter in letters} == {"items"}
    by_key = {int(letter.key or b"0"): letter for letter in letters}
    assert {number: by_key[number].reason for number in reasons} == reasons
    assert sorted(letter.reason for letter in letters) == sorted([*reasons.values()] * 2 + ["undecodable"] * 2)
    assert {tokens.item_id for tokens in stage.records()} == {0, 1, 2, 3}
    with stage.tokenizer() as process:  # what was refused is committed: it is not refused again
        stage.publish(items(4, 5))
        stage.until_tokens(5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    stage.letters.drain()
    assert len(stage.letters.received) == 8


@pytest.mark.slow
def test_an_item_published_while_it_runs_has_tokens_within_a_second(stage: Stage) -> None:
    stage.publish(items(0, 100))
    with stage.tokenizer():
        stage.publish([item(4000, embeddings(1, seed=7)[0])])
        stage.until_tokens(101)  # Faust has its partition, or the catching up took it
        waits = []
        for number in range(4001, 4006):
            started = time.monotonic()
            stage.publish([item(number, embeddings(1, seed=number)[0])])
            stage.until_tokens(number - 4000 + 101)
            waits.append(time.monotonic() - started)
        assert min(waits) < 1.0, waits  # the others may have waited for the machine
        changed = replace(items(5, 6)[0], duration_ms=7777)
        stage.publish([items(6, 7)[0], changed])  # one as it was, one with another length
        stage.tokens.until(lambda: any(tokens.duration_ms == 7777 for tokens in stage.records()), stage.log)
    ids = [tokens.item_id for tokens in stage.records()]
    assert ids.count(6) == 1
    assert ids.count(5) == 2
    assert len({tokens.codes for tokens in stage.records()}) == 106


@pytest.mark.slow
def test_with_another_codebook_every_item_is_tokenised_again_even_after_a_kill(stage: Stage) -> None:
    stage.publish(items(0, 600))
    with stage.tokenizer() as process:
        stage.until_tokens(600)
        process.send_signal(signal.SIGTERM)  # so that what it has read is committed
        assert process.wait(60) == 0
    codebooks.save(stage.store, codebook(30, version=2, codes=16))
    with stage.tokenizer(max_batch=4, before=SLOW) as process:
        stage.until_tokens(50, version=2)
        process.kill()
        process.wait()
    stage.tokens.drain()
    assert sum(tokens.codebook_version == 2 for tokens in stage.records()) < 600, "the kill came too late"
    with stage.tokenizer():
        stage.until_tokens(600, version=2)
    assert max(max(tokens.codes) for tokens in stage.records() if tokens.codebook_version == 2) < 16


def test_without_a_codebook_it_says_what_to_do(kafka: KafkaSettings, tmp_path: Path) -> None:
    stage = Stage(kafka, tmp_path)
    with stage.tokenizer() as process:
        assert process.wait(60) == 3
    assert "Fit one: `python -m stream codebook`" in stage.log.read_text()
