"""Consumer groups: what one committed the next one goes on from, under both of Kafka's group protocols."""

from __future__ import annotations

import pytest

from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import Received, RecordReader
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import IMPRESSIONS, id_key
from tests.broker import Broker
from tests.kafka.reading import until_it_raises
from tests.schemas.examples import BY_TYPE

pytestmark = pytest.mark.broker


def send(kafka: KafkaSettings, count: int) -> None:
    writer = RecordWriter(kafka)
    for user_id in range(count):
        writer.send(IMPRESSIONS, id_key(user_id), BY_TYPE[Impression])
    writer.flush(60)


def read_and_commit(kafka: KafkaSettings, count: int) -> list[Received]:
    consumer = clients.consumer(kafka, group="reader")
    consumer.subscribe([clients.topic_name(kafka, IMPRESSIONS)])
    reader = RecordReader(consumer, [IMPRESSIONS], kafka, refused=DeadLetters(kafka, "test"))
    got: list[Received] = []
    while len(got) < count:
        got += reader.read(1000, 1.0)
    consumer.commit(asynchronous=False)
    consumer.close()
    return got


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_goes_on_where_it_left(kafka: KafkaSettings, broker: Broker, protocol: str) -> None:
    if protocol == "consumer" and broker.kind == "embedded":
        pytest.skip("the embedded broker has no KIP-848")
    kafka = kafka.model_copy(update={"group_protocol": protocol})
    assert admin.committed(kafka, "reader", IMPRESSIONS) == {0: 0, 1: 0}
    send(kafka, 20)
    first = read_and_commit(kafka, 20)
    assert admin.committed(kafka, "reader", IMPRESSIONS) == admin.end_offsets(kafka, IMPRESSIONS)
    send(kafka, 20)
    second = read_and_commit(kafka, 20)
    places = {(received.partition, received.offset) for received in first + second}
    assert len(places) == len(first) + len(second) == 40


def test_a_reader_whose_place_in_the_group_was_taken_says_so(kafka: KafkaSettings, broker: Broker) -> None:
    if broker.kind == "embedded":
        pytest.skip("the embedded broker has no static members")
    readers = []
    for _ in range(2):
        consumer = clients.consumer(kafka, group="reader", group_instance_id="0")
        consumer.subscribe([clients.topic_name(kafka, IMPRESSIONS)])
        readers.append((RecordReader(consumer, [IMPRESSIONS], kafka, refused=DeadLetters(kafka, "test")), consumer))
        while not consumer.assignment():
            readers[-1][0].read(1, 0.1)
    (first, _), _ = readers
    with pytest.raises(DependencyMissingError, match="fenced by other consumer"):
        until_it_raises(lambda: first.read(1, 0.1))
    for _, consumer in readers:
        consumer.close()
