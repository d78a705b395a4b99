"""The sampler as a process on a real broker: from live requests to pairs, without a model, through a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.sampler.identity import is_sampled, pair_id_of
from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.kafka import admin
from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.metrics import read_metrics
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import OneRec
from onerec.processes import free_port
from onerec.settings import KafkaSettings
from schemas.packed import pack_longs
from schemas.records import DeadLetter, History, ItemTokens, PreferencePair, Request
from schemas.topics import DEAD_LETTERS, HISTORIES, ITEM_TOKENS, PREFERENCES, REQUESTS, Topic, id_key
from tests.inference import toys
from tests.inference.publishing import Publisher, random_weights, settings_of
from tests.kafka.reading import followed

pytestmark = [pytest.mark.broker, pytest.mark.slow]

CONFIG = toys.config()
CATALOGUE = toys.catalogue(CONFIG, 60)
SHARE = 0.5
USERS = 6
PROGRAM = """
import sys
from inference.sampler.service import run
from onerec.settings import load_settings
sys.exit(run(load_settings()))
"""
SLOW = """
import time
from inference.sampler import service
from onerec import faust_agents
service.MAX_PENDING, service.MAX_BEHIND, faust_agents.MAX_UNACKNOWLEDGED = 20, 100, 200
quick = service.PairMaker.extremes
def extremes(*args, **kwargs):
    time.sleep(0.02)
    return quick(*args, **kwargs)
service.PairMaker.extremes = extremes
"""
"""A model of at most fifty pairs a second, and narrow bounds."""
STALLS = """
import time
from inference.sampler import service
quick, stalls = service.PairMaker.extremes, [8.0]
def extremes(*args, **kwargs):
    if stalls:
        time.sleep(stalls.pop())
    return quick(*args, **kwargs)
service.PairMaker.extremes = extremes
"""
"""The first pair takes longer than the group waits for a member's heartbeat (6 s)."""


class System:
    """Everything around the sampler."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self.kafka = kafka
        self.folder = folder
        self.publisher = Publisher(settings_of(kafka, folder))
        self.writer = RecordWriter(kafka)
        self.port = free_port()

    @contextmanager
    def sampler(self, before: str = "", share: float = SHARE) -> Iterator[subprocess.Popen[bytes]]:
        kafka = self.kafka.model_dump(include=self.kafka.model_fields_set)
        environment = os.environ | {
            **{f"ONEREC_KAFKA__{name.upper()}": str(value) for name, value in kafka.items()},
            "ONEREC_STORE__URI": self.publisher.settings.store.uri,
            "ONEREC_STORE__STATE_DIR": str(self.folder / "state"),
            "ONEREC_MODEL__PRESET": "tiny",
            "ONEREC_METRICS__PORT": str(self.port),
            "ONEREC_INFERENCE__SAMPLER__SHARE": str(share),
            "ONEREC_INFERENCE__SAMPLER__CANDIDATES": "16",
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as stderr:
            process = subprocess.Popen([sys.executable, "-c", before + PROGRAM], env=environment, stderr=stderr)
        self.process = process
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def metric(self, name: str) -> float:
        return sum(read_metrics(self.port, timeout_s=60).get(f"inference_sampler_{name}", {}).values())

    def publish_items_and_histories(self) -> None:
        for row, codes in enumerate(CATALOGUE.codes.tolist()):
            tokens = ItemTokens(
                item_id=1000 + row,
                codes=tuple(codes),
                codebook_version=1,
                duration_ms=row * 1000,
                tags=(),
                created_ms=0,
            )
            self.writer.send(ITEM_TOKENS, id_key(tokens.item_id), tokens)
        for user in range(USERS):
            items = range(1000 + user, 1000 + user + user)
            history = History(
                user_id=user,
                history_items=pack_longs(items),
                history_times_ms=pack_longs(items),
                history_labels=bytes([1] * user),
                updated_ms=1,
            )
            self.writer.send(HISTORIES, id_key(user), history)
        self.writer.flush(60)

    def ask(self, numbers: range) -> set[int]:
        """Send requests; the pair ids to expect."""
        for number in numbers:
            request = Request(request_id=number, user_id=number % USERS, time_ms=number, produced_ms=1)
            self.writer.send(REQUESTS, id_key(request.user_id), request, timestamp_ms=number)
        self.writer.flush(60)
        return {pair_id_of(number) for number in numbers if is_sampled(number, SHARE)}

    def read(self, topic: Topic) -> list[object]:
        found: list[object] = []
        follower = TopicFollower(self.kafka, topic, lambda received: found.append(received.record), service="test")
        follower.catch_up(60)
        follower.close()
        return found

    def pairs(self) -> list[PreferencePair]:
        return [pair for pair in self.read(PREFERENCES) if isinstance(pair, PreferencePair)]

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 100
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


def check(pair: PreferencePair, model: OneRec, catalogue: CatalogueSnapshot) -> None:
    """The pair is what it claims to be, computed afresh from its own fields."""
    history = HistoryArrays.of(pair)
    assert history.items.tolist() == list(range(1000 + pair.user_id, 1000 + 2 * pair.user_id))
    assert (pair.pair_id, pair.user_id) == (pair_id_of(pair.request_id), pair.request_id % USERS)
    assert pair.chosen_rewards.scalar > pair.rejected_rewards.scalar
    assert (pair.candidates, pair.model_version, pair.catalogue_offset) == (16, 1, 60)
    sessions = torch.from_numpy(catalogue.leaves(np.array([pair.chosen, pair.rejected])))
    assert (sessions >= 0).all()
    batch = history_batch([history, history], catalogue, CONFIG)
    with torch.no_grad():
        log_probs = token_log_probs(model, model.encode(batch), sessions, catalogue.trie).sum((1, 2))
    assert [pair.chosen_log_prob, pair.rejected_log_prob] == pytest.approx(log_probs.tolist(), abs=1e-3)
    for session in (pair.chosen, pair.rejected):
        assert len({*session, *history.items.tolist()}) == len(session) + len(history.items), "distinct and unseen"


def test_from_requests_to_pairs_without_a_model_at_first_and_through_a_kill(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    system = System(kafka, tmp_path)
    system.publish_items_and_histories()
    expected = system.ask(range(30))
    with system.sampler() as process:
        system.until(lambda: system.metric("requests_total") == 30)  # reads on while it waits for a model
        system.until(lambda: system.metric("pending") == len(expected))
        weights = random_weights(3, scale=2.0)
        system.publisher.publish(1, weights)
        with followed(kafka, PREFERENCES) as pairs_so_far:
            system.until(lambda: len(pairs_so_far()) >= len(expected))
        assert {pair.pair_id for pair in system.pairs()} == expected
        system.writer.producer.produce(kafka.topic_prefix + REQUESTS.name, b"rubbish", b"1")
        expected |= system.ask(range(30, 130))
        process.send_signal(signal.SIGKILL)
        process.wait()
    expected |= system.ask(range(130, 150))
    with system.sampler() as process:
        with followed(kafka, PREFERENCES) as pairs_so_far:
            system.until(lambda: len({pair.pair_id for pair in pairs_so_far()}) >= len(expected))
        system.until(lambda: system.metric("version") == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    pairs = system.pairs()
    assert {pair.pair_id for pair in pairs} == expected
    model = OneRec(CONFIG).eval()
    state = {name: weights[f"onerec.{name}"] for name in model.state_dict()}
    model.load_state_dict(state)
    for pair in pairs:
        check(pair, model, CATALOGUE)
    refused = [letter for letter in system.read(DEAD_LETTERS) if isinstance(letter, DeadLetter)]
    assert {(letter.topic, letter.value) for letter in refused} == {("requests", b"rubbish")}


def test_a_slow_model_makes_fewer_pairs_and_reads_on(kafka: KafkaSettings, tmp_path: Path) -> None:
    """Every request is sampled, and far more come than the model can take."""
    system, asked = System(kafka, tmp_path), 1200
    system.publish_items_and_histories()
    system.publisher.publish(1, random_weights(3, scale=2.0))
    most = 0.0
    with system.sampler(SLOW, share=1.0) as process:
        system.ask(range(asked))

        def all_done() -> bool:
            nonlocal most
            most = max(most, system.metric("pending"))
            return sum(admin.committed(kafka, "sampler", REQUESTS).values()) == asked

        system.until(all_done)
        assert system.metric("requests_total") == asked
        made, skipped = system.metric("pairs_total"), system.metric("skipped_total")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert most <= 20
    assert made + skipped == asked, "what is left out is counted"
    assert made > 0
    assert skipped > 0, "far more came than it could take"
    assert len({pair.pair_id for pair in system.pairs()}) == made


def test_pairs_that_take_longer_than_the_session_cost_no_partition(kafka: KafkaSettings, tmp_path: Path) -> None:
    """Were the sampler taken for dead meanwhile, its requests would come again, and their pairs, too."""
    system, asked = System(kafka, tmp_path), 30
    system.publish_items_and_histories()
    system.publisher.publish(1, random_weights(3, scale=2.0))
    with system.sampler(STALLS, share=1.0) as process:
        system.ask(range(asked))
        system.until(lambda: sum(admin.committed(kafka, "sampler", REQUESTS).values()) == asked)
        assert system.metric("requests_total") == asked
        assert system.metric("pairs_total") == asked
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert sorted(pair.request_id for pair in system.pairs()) == list(range(asked))
