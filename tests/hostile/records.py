"""Malformed and hostile records of every topic, kind by kind, each a function of a seed."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import fastavro

from schemas import definitions
from schemas.codec import SINGLE_OBJECT_BYTES, Codec
from schemas.records import Item
from schemas.topics import ITEMS, TOPICS, Topic
from tests.schemas.examples import BY_TYPE

Made = tuple[Topic, bytes | None]
WITH_RECORDS = tuple(topic for topic in TOPICS if topic.record is not None)
CODECS = {topic.name: Codec(topic) for topic in WITH_RECORDS}
VALID = {topic.name: CODECS[topic.name].encode(BY_TYPE[topic.record]) for topic in WITH_RECORDS if topic.record}
LARGE_BYTES = 2_000_000
"""Just below the largest message."""

PRIMITIVES = frozenset({"string", "long", "int", "double", "float", "boolean", "bytes"})
INTEGERS = (0, 1, -1, 63, 64, -64, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**63 - 1, -(2**63))
TIMES_MS = (0, -1, 1_650_000_000_000, 4_102_444_800_000, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
LENGTHS = (-1, -(2**63), 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)


def varint(value: int) -> bytes:
    """An Avro long of 64 bits."""
    left = ((value << 1) ^ (value >> 63)) & (2**64 - 1)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def some_topic(random: Random) -> Topic:
    return random.choice(WITH_RECORDS)


def header(topic: Topic) -> bytes:
    return VALID[topic.name][:SINGLE_OBJECT_BYTES]


def truncated(random: Random) -> Made:
    topic = some_topic(random)
    data = VALID[topic.name]
    return topic, data[: random.randrange(len(data))]


def flipped(random: Random) -> Made:
    """Up to eight bits of a valid record turned over: some stay harmless."""
    topic = some_topic(random)
    data = bytearray(VALID[topic.name])
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return topic, bytes(data)


def spliced(random: Random) -> Made:
    """Two valid records cut anywhere and joined."""
    topic = some_topic(random)
    one, other = VALID[topic.name], VALID[some_topic(random).name]
    return topic, one[: random.randrange(len(one))] + other[random.randrange(len(other)) :]


def noise(random: Random) -> Made:
    """Random bytes behind the right header."""
    topic = some_topic(random)
    return topic, header(topic) + random.randbytes(random.randrange(300))


def no_header(random: Random) -> Made:
    """Wrong magic bytes: JSON, text, another format, nothing at all."""
    other = (None, b"", b"\xc3", b"\xc3\x01", b'{"user_id": 7}', b"PK\x03\x04", b"Obj\x01", b"\x1f\x8b\x08", b"\x00")
    data = random.choice(other)
    return some_topic(random), data if data is None else data + random.randbytes(random.choice((0, 20)))


def unknown_schema(random: Random) -> Made:
    """Unknown fingerprints, ids of a registry that is not there, records of another topic."""
    topic = some_topic(random)
    body = VALID[topic.name][SINGLE_OBJECT_BYTES:]
    other = random.choice([one for one in WITH_RECORDS if one.record is not topic.record])
    start = random.choice((b"\xc3\x01" + random.randbytes(8), b"\x00" + random.randbytes(4), header(other)))
    return topic, start + body


def lengths(random: Random) -> Made:
    """A huge or negative number where a length, a count or a value stands."""
    topic = some_topic(random)
    data = VALID[topic.name]
    at = random.randrange(SINGLE_OBJECT_BYTES, len(data))
    return topic, data[:at] + varint(random.choice(LENGTHS)) + data[at + random.randrange(2) :]


def long_varints(random: Random) -> Made:
    """Numbers with needless bytes, or of more than 64 bits."""
    topic = some_topic(random)
    data = VALID[topic.name]
    at = random.randrange(SINGLE_OBJECT_BYTES, len(data))
    return topic, data[:at] + random.choice((b"\x80", b"\xff")) * random.randint(1, 40) + data[at:]


def blocks(random: Random) -> Made:
    """Arrays of many empty, negative or nested blocks."""
    topic = some_topic(random)
    data = VALID[topic.name]
    at = random.randrange(SINGLE_OBJECT_BYTES, len(data))
    block = varint(random.choice((1, -1, -(2**63), 2**40))) + varint(random.choice((0, -1, 2**62)))
    return topic, data[:at] + block * random.randint(1, 50) + data[at:]


def trailing(random: Random) -> Made:
    topic = some_topic(random)
    return topic, VALID[topic.name] + random.randbytes(random.randint(1, 50))


def values(random: Random) -> Made:
    """Valid Avro with the worst values of each type: overflows, NaN, infinity, far times, wrong packed lengths."""
    topic = some_topic(random)
    assert topic.record is not None
    good = dataclasses.asdict(BY_TYPE[topic.record])
    schema = definitions.current()[topic.record.__name__]
    own = [field for field in schema["fields"] if not isinstance(field["type"], str) or field["type"] in PRIMITIVES]
    for field in random.sample(own, min(random.randint(1, 3), len(own))):
        good[field["name"]] = worst(field["type"], field["name"], random)
    return topic, encoded(topic, good)


def encoded(topic: Topic, fields: Mapping[str, Any]) -> bytes:
    """The bytes of these fields, whatever our own encoder would say."""
    assert topic.record is not None
    out = io.BytesIO(header(topic))
    out.seek(0, io.SEEK_END)
    schema = definitions.parsed(definitions.current()[topic.record.__name__])
    fastavro.schemaless_writer(out, schema, fields)
    return out.getvalue()


def worst(kind: Any, name: str, random: Random) -> Any:
    """A value of an Avro type at the edge of what it holds."""
    if isinstance(kind, list):
        return None if random.random() < 0.2 else worst(kind[1], name, random)
    if isinstance(kind, dict):
        return _worst_of(kind, name, random)
    if kind in {"long", "int"}:
        number = random.choice(TIMES_MS if name.endswith("_ms") else INTEGERS)
        return number if kind == "long" else max(-(2**31), min(2**31 - 1, number))
    simple: dict[str, Callable[[], Any]] = {
        "double": lambda: random.choice(FLOATS),
        "float": lambda: random.choice(FLOATS),
        "boolean": lambda: random.random() < 0.5,
        "string": lambda: random.choice(("", "\0", "\u202e", "\x1b[2J", "🎬" * 50, "a" * 5000)),
        "bytes": lambda: random.randbytes(random.choice((0, 1, 7, 8, 16, 24, 1000))),
    }
    return simple[kind]()


def _worst_of(kind: Mapping[str, Any], name: str, random: Random) -> Any:
    if kind["type"] == "enum":
        return random.choice(kind["symbols"])
    if kind["type"] == "record":
        return {field["name"]: worst(field["type"], field["name"], random) for field in kind["fields"]}
    many = random.choice((0, 1, 3, 500))
    inner = kind["items" if kind["type"] == "array" else "values"]
    if isinstance(inner, str) and inner not in PRIMITIVES:
        return []  # a record that was defined before
    found = [worst(inner, name, random) for _ in range(many)]
    return found if kind["type"] == "array" else {f"k{number}": one for number, one in enumerate(found)}


def embeddings(random: Random) -> Made:
    """Items whose embedding is NaN, infinite, of another width, or no floats at all."""
    item: Item = BY_TYPE[Item]
    number = random.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f"))
    data = bytearray(item.embedding)
    at = 4 * random.randrange(len(data) // 4)
    data[at : at + 4] = number
    width = random.choice((0, 1, 3, 4, 8, 15, 16, 17, 4000))
    damaged = random.choice((bytes(data), bytes(width), random.randbytes(width)))
    return ITEMS, CODECS[ITEMS.name].encode(dataclasses.replace(item, embedding=damaged))


def largest(random: Random) -> Made:
    """As many elements as the largest message holds, each as small as it can be."""
    topic = some_topic(random)
    data = VALID[topic.name]
    at = random.randrange(SINGLE_OBJECT_BYTES, len(data))
    fill = random.choice((b"\x00", b"\x02", b"\x02\x00", b"\x7f", random.randbytes(16)))
    count = random.choice((LARGE_BYTES // 32, LARGE_BYTES // 18, LARGE_BYTES))
    return topic, data[:at] + varint(count) + (fill * (LARGE_BYTES // len(fill)))[:LARGE_BYTES] + data[at:]


KINDS: dict[str, Callable[[Random], Made]] = {
    "truncated anywhere": truncated,
    "bits flipped": flipped,
    "two records spliced": spliced,
    "noise behind the header": noise,
    "wrong magic bytes": no_header,
    "unknown schemas": unknown_schema,
    "huge and negative lengths": lengths,
    "overlong varints": long_varints,
    "endless and nested blocks": blocks,
    "trailing bytes": trailing,
    "extreme values": values,
    "embeddings NaN, infinite, wide": embeddings,
    "2 MB of the smallest elements": largest,
}
SHARES = {"2 MB of the smallest elements": 0.0005}
"""Of the records; the other kinds share the rest equally."""
