"""Records to bytes and back: Avro, with the writer's schema named in front.

Without a registry a value is in Avro's single-object encoding (C3 01, then the schema's CRC-64-AVRO
fingerprint, little-endian, 8 bytes); with one, in Confluent's wire format (00, then the registry's id, big-endian,
4 bytes). A reader takes both, so a system can move from one to the other while it runs. Bytes written with an earlier
or a later schema are resolved to the current one by Avro's rules.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import fastavro

from schemas import conversion, definitions, foreign
from schemas.reasons import Reason
from schemas.topics import Topic

SINGLE_OBJECT = b"\xc3\x01"
SINGLE_OBJECT_BYTES = len(SINGLE_OBJECT) + definitions.FINGERPRINT_BYTES
CONFLUENT = b"\x00"
CONFLUENT_BYTES = 5


class DecodeError(ValueError):
    """Bytes that are no record of the topic: `reason` for counting, `detail` for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SchemaIds(Protocol):
    """A schema registry: ids of schemas and schemas of ids."""

    def id_of(self, topic: Topic, schema: Mapping[str, Any]) -> int:
        """The id under which `schema` is registered for the topic's values; registers it where it is not."""

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        """The schema with this id; None where the registry has none."""


class Codec:
    """Encodes and decodes the records of one topic. Threads may share it."""

    def __init__(
        self, topic: Topic, *, registry: SchemaIds | None = None, writers: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """`writers` are schemas, beside the current and the previous ones, that records may be written with."""
        if topic.record is None:
            raise ValueError(f"topic {topic.name} is private to its service and has no schema")
        self.topic = topic
        name = topic.record.__name__
        self._schema = definitions.current()[name]
        self._parsed = definitions.parsed(self._schema)
        self._fingerprint = definitions.fingerprint_bytes(self._schema)
        self._as_dict = conversion.writer(topic.record)
        self._build = conversion.reader(topic.record)
        self._registry = registry
        self._header = b"" if registry else SINGLE_OBJECT + self._fingerprint
        self._readers: dict[bytes, Any] = {SINGLE_OBJECT + self._fingerprint: None}
        for schema in (*definitions.previous(name), *writers):
            header = SINGLE_OBJECT + definitions.fingerprint_bytes(schema)
            self._readers.setdefault(header, definitions.parsed(schema))

    def header(self) -> bytes:
        """What stands before each record that is written; with a registry this registers the schema."""
        return self._header or self._register()

    def encode(self, record: Any) -> bytes:
        """The record's bytes. Raises ValueError where a value does not fit its field."""
        out = io.BytesIO()
        out.write(self.header())
        try:
            fastavro.schemaless_writer(out, self._parsed, self._as_dict(record))
        except (AttributeError, TypeError, ValueError, OverflowError, KeyError) as error:
            raise ValueError(f"no {self.topic.name} record: {error!r}: {record!r:.500}") from error
        return out.getvalue()

    def decode(self, data: bytes | None) -> Any:
        """The record of these bytes, as the dataclass of the topic. Raises DecodeError."""
        if not data:
            raise DecodeError(Reason.UNDECODABLE, "no value")
        size = CONFLUENT_BYTES if data[:1] == CONFLUENT else SINGLE_OBJECT_BYTES
        header = data[:size]
        try:
            writer = self._readers[header]
        except KeyError:
            writer = self._learn(header)
        body = io.BytesIO(data)
        body.seek(size)
        return self._read(body, writer, len(data))

    def decode_many(self, values: Iterable[bytes | None]) -> list[Any]:
        """For each value its record or, where it is refused, the DecodeError: as long as `values`."""
        return [self._decode_or_error(value) for value in values]

    def _decode_or_error(self, data: bytes | None) -> Any:
        try:
            return self.decode(data)
        except DecodeError as error:
            return error

    def _read(self, body: io.BytesIO, writer: Any, size: int) -> Any:
        try:
            if writer is None:
                values = fastavro.schemaless_reader(body, self._parsed, None)
            else:
                values = fastavro.schemaless_reader(body, writer, self._parsed)
            record = self._build(values)
        except Exception as error:  # hostile bytes: fastavro raises what its parts raise
            raise DecodeError(Reason.UNDECODABLE, f"{type(error).__name__}: {error}"[:500]) from error
        if body.tell() != size:
            raise DecodeError(Reason.UNDECODABLE, f"{size - body.tell()} bytes too many after the record")
        return record

    def _register(self) -> bytes:
        """The header by the registry's id: asked for by the first record that is written, never by a mere reader."""
        assert self._registry is not None
        self._header = CONFLUENT + self._registry.id_of(self.topic, self._schema).to_bytes(4, "big")
        return self._header

    def _learn(self, header: bytes) -> Any:
        """The writer's schema of a header seen for the first time; raises DecodeError where there is none."""
        if header[:1] == CONFLUENT and len(header) == CONFLUENT_BYTES and self._registry is not None:
            writer = self._registered(int.from_bytes(header[1:], "big"), self._registry.schema_of)
            self._readers[header] = writer
            return writer
        if header[:2] == SINGLE_OBJECT and len(header) == SINGLE_OBJECT_BYTES:
            raise DecodeError(Reason.UNKNOWN_SCHEMA, f"fingerprint {header[2:].hex()} (little-endian) is not known")
        if header[:1] == CONFLUENT and len(header) == CONFLUENT_BYTES:
            raise DecodeError(Reason.UNKNOWN_SCHEMA, "Confluent wire format, but no kafka.schema_registry_url is set")
        raise DecodeError(Reason.UNDECODABLE, f"starts with {header.hex()}, which is no header of an Avro record")

    def _registered(self, schema_id: int, schema_of: Callable[[int], Mapping[str, Any] | None]) -> Any:
        schema = schema_of(schema_id)
        if schema is None:
            raise DecodeError(Reason.UNKNOWN_SCHEMA, f"the registry has no Avro schema with id {schema_id}")
        try:
            problem = foreign.objection(schema)
            if problem is None and definitions.fingerprint_bytes(schema) == self._fingerprint:
                return None
            parsed = None if problem else definitions.parsed(schema)
        except Exception as error:  # anybody may register anything
            raise DecodeError(Reason.UNKNOWN_SCHEMA, f"schema {schema_id} is no record schema: {error}") from error
        if problem is not None:
            raise DecodeError(Reason.UNKNOWN_SCHEMA, f"schema {schema_id} is not safe to decode with: {problem}")
        return parsed
