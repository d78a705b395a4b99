"""Three nodes of Apache Kafka: the one that leads the trainer's journal gets SIGKILL while it learns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cluster import NODES, KafkaCluster
from chaos.leaders import java_hash
from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients
from schemas.records import JournalKind
from schemas.topics import SESSIONS, TRAINER_JOURNAL
from tests.trainer import toy
from tests.trainer.test_kills import consumed, weights_without_interruption
from tests.trainer.world import World

WAVE = 24


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    try:
        cluster = KafkaCluster(tmp_path / "cluster")
    except DependencyMissingError as error:
        pytest.skip(f"no cluster of three here: {error.problem}")
    with cluster:
        yield cluster


def test_hash_of_java() -> None:
    assert java_hash("hello") == 99162322
    assert java_hash("onerec-joiner") == 4073692698, "negative in Java"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_leader_is_killed_and_the_trainer_goes_on_bit_for_bit(cluster: KafkaCluster, tmp_path: Path) -> None:
    kafka = cluster.kafka.model_copy(update={"topic_prefix": "t-", "group_prefix": "g-", "partitions": 2})
    admin.create_topics(kafka)
    assert admin.check_topics(kafka) == []
    world = World(kafka, tmp_path, {"batch": 8})
    world.publish_catalogue()
    world.publish_histories()
    published = 0

    def publish() -> None:
        nonlocal published
        world.publish_sessions([toy.session(published + n, [n % 50, (7 * n) % 50]) for n in range(WAVE)])
        published += WAVE

    with world.running() as process:
        publish()
        world.wait_for_sessions(published, process)
        node = cluster.leaders.of_partition(clients.topic_name(kafka, TRAINER_JOURNAL), 0)
        publish()
        cluster.kill(node)
        assert sum(admin.end_offsets(kafka, SESSIONS).values()) >= published
        publish()
        world.wait_for_sessions(published, process)
        cluster.start(node)
        cluster.leaders.wait_in_sync(NODES)

    assert sum(r.applied for r in consumed(world, SESSIONS.name)) == published, "each is applied once"
    assert [entry.epoch for entry in world.journal() if entry.kind is JournalKind.START] == [1], "it never ended"
    versions = {e.version: e.weights_sha256 for e in world.journal() if e.kind is JournalKind.PUBLISH}
    assert {v.version: v.sha256 for v in world.versions()} == versions
    assert weights_without_interruption(world)[1] == versions
