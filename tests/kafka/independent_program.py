"""A program of somebody else: the `.avsc` files, fastavro and confluent-kafka, and nothing of this project.

`produce` reads JSON lines {topic, key, time_ms, value} from standard input, `consume COUNT` prints such lines. Bytes
stand as {"bytes": "…"} in latin-1. Arguments: folder of schemas, bootstrap servers, topic prefix, then the command.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import confluent_kafka
import fastavro

RECORDS = {
    "items": "item",
    "item-tokens": "item_tokens",
    "impressions": "impression",
    "actions": "action",
    "histories": "history",
    "sessions": "session",
    "requests": "request",
    "recommendations": "recommendation",
    "recommendations-shadow": "recommendation",
    "preferences": "preference_pair",
    "model-versions": "model_version",
    "trainer-journal": "trainer_journal",
    "dead-letters": "dead_letter",
}
EMPTY = 0xC15D213AA4D7A795


def fingerprint(schema: Any) -> bytes:
    value = EMPTY
    for byte in fastavro.schema.to_parsing_canonical_form(schema).encode():
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (EMPTY & -(value & 1))
    return value.to_bytes(8, "little")


def bytes_of(value: Any) -> Any:
    return value["bytes"].encode("latin-1") if set(value) == {"bytes"} else value


def json_of(value: bytes) -> Any:
    return {"bytes": value.decode("latin-1")}


def produce(schemas: dict[str, Any], servers: str, prefix: str) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    failures: list[str] = []
    for line in sys.stdin:
        record = json.loads(line, object_hook=bytes_of)
        out = io.BytesIO()
        schema = schemas[record["topic"]]
        out.write(b"\xc3\x01" + fingerprint(schema))
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record["value"])
        producer.produce(
            prefix + record["topic"],
            out.getvalue(),
            record["key"],
            timestamp=record["time_ms"],
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )
    producer.flush()
    sys.exit("; ".join(failures) or None)


def consume(schemas: dict[str, Any], servers: str, prefix: str, count: int) -> None:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": "somebody"})
    topics = consumer.list_topics().topics
    consumer.assign(
        [
            confluent_kafka.TopicPartition(prefix + topic, partition, confluent_kafka.OFFSET_BEGINNING)
            for topic in schemas
            for partition in topics[prefix + topic].partitions
        ]
    )
    while count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        topic, value, key = str(message.topic()).removeprefix(prefix), message.value() or b"", message.key() or b""
        assert value[:10] == b"\xc3\x01" + fingerprint(schemas[topic]), topic
        decoded = fastavro.schemaless_reader(io.BytesIO(value[10:]), fastavro.parse_schema(schemas[topic]), None)
        line = {"topic": topic, "key": key.decode(), "time_ms": message.timestamp()[1], "value": decoded}
        sys.stdout.write(json.dumps(line, default=json_of) + "\n")
        count -= 1
    consumer.close()


folder, servers, prefix, command, *rest = sys.argv[1:]
schemas = {topic: json.loads((Path(folder) / f"{name}.avsc").read_text()) for topic, name in RECORDS.items()}
if command == "produce":
    produce(schemas, servers, prefix)
else:
    consume(schemas, servers, prefix, int(rest[0]))
