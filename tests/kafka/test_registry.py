"""Confluent wire format with a registry: what Confluent's own clients write we read, and they what we write."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka.registry import Registry, codec
from onerec.settings import KafkaSettings
from schemas import definitions
from schemas.codec import Codec, DecodeError
from schemas.reasons import Reason
from schemas.records import Impression
from schemas.topics import ACTIONS, IMPRESSIONS
from tests.schemas.examples import BY_TYPE

IMPRESSION: Impression = BY_TYPE[Impression]
VALUE = SerializationContext("p-impressions", MessageField.VALUE)


@pytest.fixture
def client() -> Any:
    """Confluent's registry in memory."""
    return SchemaRegistryClient.new_client({"url": "mock://registry"})


def schema_text(*, without: str = "") -> str:
    schema = dict(definitions.current()["Impression"])
    schema["fields"] = [field for field in schema["fields"] if field["name"] != without]
    return json.dumps(schema)


def refusal(of: Codec, data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        of.decode(data)
    return caught.value


def test_their_reader_reads_what_we_write(client: Any) -> None:
    data = Codec(IMPRESSIONS, registry=Registry(client, topic_prefix="p-")).encode(IMPRESSION)
    assert data[:1] == b"\x00"
    assert client.get_subjects() == ["p-impressions-value"]
    assert AvroDeserializer(client)(data, VALUE) == dataclasses.asdict(IMPRESSION)


def test_we_read_what_their_writer_writes(client: Any) -> None:
    values = dataclasses.asdict(IMPRESSION)
    data = AvroSerializer(client, schema_text())(values, VALUE)
    reader = Codec(IMPRESSIONS, registry=Registry(client, topic_prefix="p-"))
    assert reader.decode(data) == IMPRESSION


def test_an_older_schema_of_theirs_is_resolved(client: Any) -> None:
    values = dataclasses.asdict(IMPRESSION)
    del values["model_version"]
    data = AvroSerializer(client, schema_text(without="model_version"))(values, VALUE)
    reader = Codec(IMPRESSIONS, registry=Registry(client, topic_prefix="p-"))
    assert reader.decode(data) == dataclasses.replace(IMPRESSION, model_version=None)


def test_a_reader_takes_both_framings_and_registers_nothing(client: Any) -> None:
    reader = Codec(IMPRESSIONS, registry=Registry(client))
    assert reader.decode(Codec(IMPRESSIONS).encode(IMPRESSION)) == IMPRESSION
    assert client.get_subjects() == []


def test_unknown_ids_are_refused_and_asked_for_once(client: Any) -> None:
    asked: list[int] = []
    get_schema = client.get_schema

    def counted(schema_id: int) -> Any:
        asked.append(schema_id)
        return get_schema(schema_id)

    client.get_schema = counted
    reader = Codec(IMPRESSIONS, registry=Registry(client))
    for _ in range(10):
        assert refusal(reader, b"\x00\x00\x00\x00\x63rest").reason is Reason.UNKNOWN_SCHEMA
    assert asked == [99]


def test_schemas_that_are_no_record_of_ours_are_refused(client: Any) -> None:
    reader = Codec(IMPRESSIONS, registry=Registry(client))
    for text, kind in (('"string"', "AVRO"), ('{"type": "object"}', "JSON"), ('{"type": "nonsense"}', "AVRO")):
        number = client.register_schema(f"other-{text}", Schema(text, kind))
        data = b"\x00" + number.to_bytes(4, "big") + b"\x02a"
        assert refusal(reader, data).reason in (Reason.UNKNOWN_SCHEMA, Reason.UNDECODABLE)


class Refusing(BaseHTTPRequestHandler):
    """A registry that finds everything incompatible."""

    logins: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        self.logins.append(self.headers["Authorization"])
        body = json.dumps({"error_code": 409, "message": "incompatible with an earlier schema"}).encode()
        self.send_response(409)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


@pytest.fixture
def refusing() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_incompatible_schema_is_named(refusing: str) -> None:
    kafka = KafkaSettings(schema_registry_url=refusing)
    with pytest.raises(CheckFailedError, match=r"refuses the schema of impressions-value: incompatible"):
        codec(kafka, IMPRESSIONS).encode(IMPRESSION)


def test_user_and_password_of_the_url_are_given_and_not_shown(refusing: str) -> None:
    kafka = KafkaSettings(schema_registry_url=refusing.replace("://", "://me:pass%2Fword@"))
    with pytest.raises(CheckFailedError) as raised:
        codec(kafka, IMPRESSIONS).encode(IMPRESSION)
    assert Refusing.logins[-1] == f"Basic {base64.b64encode(b'me:pass/word').decode()}"
    assert "word" not in str(raised.value)


def test_a_registry_that_is_not_there_is_named() -> None:
    kafka = KafkaSettings(schema_registry_url="http://127.0.0.1:1")
    with pytest.raises(DependencyMissingError, match=r"schema registry.*kafka\.schema_registry_url"):
        codec(kafka, ACTIONS).decode(b"\x00\x00\x00\x00\x01rest")
