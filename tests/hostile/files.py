"""Hostile files: weights, deltas, manifests, checkpoints, mappings. Each kind makes bytes and has their reader."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
import zstandard

from onerec.cli import versions
from onerec.errors import OneRecError
from onerec.settings import StoreSettings, TrainerSettings
from onerec.weights import delta
from onerec.weights.errors import WrongSignatureError
from onerec.weights.manifest import Manifest
from onerec.weights.record import record_of
from onerec.weights.signature import Verifier, verifier_of
from onerec.weights.tensors import TensorSpec, pack, specs_of, unpack
from stream.replay.mapping import read_mapping
from tests.hostile.reading import Outcome, measured
from tests.hostile.records import CODECS
from tests.trainer import toy
from trainer.checkpoint import FIELDS, TENSORS, load_checkpoint
from trainer.state import TrainState

PARENT = {"a": torch.arange(40.0), "b": torch.arange(6, dtype=torch.int64), "c": torch.zeros(3, 2).bfloat16()}
CHILD = {name: tensor + 1 for name, tensor in PARENT.items()}
MANIFEST = Manifest(
    version=7, kind="delta", parent=6, parent_sha256="ab" * 32, file="delta-0123456789ab.safetensors",
    sha256="cd" * 32, size_bytes=100, tensors={"a": ("F32", (40,))}, created_ms=1, signature="hmac-sha256:AAAA",
    facts={
        "model": "m", "step": 3, "preset": "tiny", "codebook_version": 1, "metrics": {"loss": 1.5},
        "offsets": [["sessions", 0, 7]],
    },
)  # fmt: skip
MAPPING = b"""[exposures]
path = "log.csv"
user = "user_id"
item = "video_id"
time = "shown_at"
like = "is_like"
[items]
path = "items.parquet"
item = "video_id"
"""
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**63, 2**200, "", "x" * 5000, "../../etc", [], {}, [[]], {"a": [1, {}]},
    float("nan"), "\0",
)  # fmt: skip


def mutated(data: bytes, random: Random) -> bytes:
    """Bits flipped, a stretch cut out, repeated or overwritten, or the end cut off."""
    changed = bytearray(data)
    at = random.randrange(len(changed) + 1)
    size = random.choice((1, 2, 8, 100))
    match random.randrange(5):
        case 0 if at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        case 1:
            del changed[at : at + size]
        case 2:
            changed[at:at] = changed[at : at + size]
        case 3:
            changed[at : at + size] = random.randbytes(size)
        case _:
            del changed[at:]
    return bytes(changed)


def odd_json(value: Any, random: Random) -> Any:
    """A JSON value with one part of it replaced by something odd."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(sorted(value))
        if random.random() < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: odd_json(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], odd_json(value[at], random), *value[at + 1 :]]
    return random.choice(ODD)


def nested(random: Random) -> bytes:
    """JSON within JSON, far deeper than a parser follows."""
    depth = random.choice((100, 1000, 200_000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + b"1" + closing * depth


def with_header(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def weights(random: Random) -> bytes:
    """A safetensors file: absurd shapes and offsets, odd JSON, lengths beyond the file, mutations of a good one."""
    good = pack(CHILD, {"key": "value"})
    size = int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8 : 8 + size]), good[8 + size :]
    match random.randrange(6):
        case 0:
            return random.choice((0, 1, 7, 2**24, 2**40, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little") + good[8:]
        case 1:
            header["a"]["shape"] = random.choice(([2**39] * 4, [2**40], [0, 2**39], [2] * 50_000, [1] * 200_000, [-1]))
        case 2:
            header["a"]["data_offsets"] = random.choice(
                ([0, 2**62], [8, 4], [-8, 0], [0.0, 160.0], [0], "ab", [0, 160, 1])
            )
        case 3:
            return with_header(nested(random), body)
        case 4:
            return mutated(good, random)
        case _:
            header = odd_json(header, random)
    return with_header(json.dumps(header).encode(), body)


def read_weights(data: bytes) -> None:
    unpack(data, specs_of(CHILD))


def blob(random: Random) -> bytes:
    """What claims to be zstd: bombs, frames without a size or with a wrong one, several frames, torn ones."""
    size = random.choice((0, 1, 12, 40, 64, 10**6, 2**26))
    match random.randrange(6):
        case 0:
            return compressed(size, named=True)
        case 1:
            return compressed(size, named=False)
        case 2:
            frame = bytearray(compressed(40, named=True))
            frame[5:6] = random.randbytes(1)
            return bytes(frame)
        case 3:
            return compressed(12, named=True) * random.randint(2, 5)
        case 4:
            return mutated(compressed(random.choice((12, 40)), named=True), random)
        case _:
            return b"\x28\xb5\x2f\xfd" + random.randbytes(random.randrange(40))


@cache
def compressed(size: int, *, named: bool) -> bytes:
    """So many zeros in few bytes; `named`: the frame says how many."""
    return zstandard.ZstdCompressor(write_content_size=named).compress(bytes(size))


def deltas(random: Random) -> bytes:
    """A delta: bombs in its blobs, odd names and metadata, mutations of a good one."""
    if random.random() < 0.3:
        return mutated(delta.encode(PARENT, CHILD), random)
    changed: Any = random.choice((["a"], ["a", "b", "c"], ["b"], ["a", "a"], ["zz"], "a", 5, {}, None, [["a"]]))
    widths = random.choice(((4,), (2, 4, 8), (8,), (1, 2)))
    blobs = {f"{part}.{width}": raw(blob(random)) for width in widths for part in ("symbols", "large")}
    metadata = {"encoding": random.choice((delta.ENCODING, delta.ENCODING, "pickle")), "changed": json.dumps(changed)}
    data = pack(blobs, metadata)
    if random.random() < 0.3:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"] = odd_json(header["__metadata__"], random)
        data = with_header(json.dumps(header).encode(), data[8 + size :])
    return data


def raw(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def read_delta(data: bytes) -> None:
    child = delta.apply(PARENT, data)
    assert {name: TensorSpec.of(tensor) for name, tensor in child.items()} == specs_of(PARENT)


def manifests(random: Random) -> bytes:
    good = MANIFEST.to_json()
    match random.randrange(4):
        case 0:
            return mutated(good, random)
        case 1:
            return nested(random)
        case _:
            return json.dumps(odd_json(json.loads(good), random)).encode()


def read_manifest(data: bytes) -> None:
    """As those who list, verify, pin and load versions do."""
    found = Manifest.parse(data, MANIFEST.version)
    assert Manifest.parse(found.to_json(), MANIFEST.version) == found
    versions.table([found], None)
    with contextlib.suppress(WrongSignatureError):
        verifier().check(found)
    CODECS["model-versions"].encode(record_of(found))
    {name: TensorSpec.parse(dtype, list(shape)).size_bytes for name, (dtype, shape) in found.tensors.items()}


@cache
def verifier() -> Verifier:
    path = folder() / "versions.key"
    path.write_bytes(b"k" * 64)
    found = verifier_of(StoreSettings(verify_key_file=path))
    assert found is not None
    return found


def checkpoints(random: Random) -> bytes:
    """A state.json, now and then with a checksum that fits what it holds."""
    surroundings = {"model": "m", "cluster_id": "c", "journal_offset": 4, "codebook_version": 1, "environment": {}}
    fields = {
        "format": 1, "step": 3, "online_from": 0, "version": 1, "offsets": [["sessions", 0, 5]],
        "config": dataclasses.asdict(toy.TINY), "surroundings": surroundings,
        "tensors_sha256": hashlib.sha256(checkpoint_tensors()).hexdigest(),
    }  # fmt: skip
    body = random.choice((json.dumps(odd_json(fields, random)), nested(random).decode(), json.dumps(fields), "[]", ""))
    sealed: Any = {"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}
    match random.randrange(4):
        case 0:
            return mutated(json.dumps(sealed).encode(), random)
        case 1:
            return json.dumps(odd_json(sealed, random)).encode()
        case 2:
            return nested(random)
        case _:
            return json.dumps(sealed).encode()


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="hostile-"))


@cache
def checkpoint_tensors() -> bytes:
    return safetensors.torch.save(TrainState.new(toy.TINY, TrainerSettings()).tensors())


def read_checkpoint(data: bytes) -> None:
    if not (folder() / TENSORS).exists():
        (folder() / TENSORS).write_bytes(checkpoint_tensors())
    (folder() / FIELDS).write_bytes(data)
    state, _ = load_checkpoint(folder(), toy.TINY, TrainerSettings())
    assert all(type(number) is int and number >= 0 for number in (state.step, state.version, *state.offsets.values()))


def mappings(random: Random) -> bytes:
    odd = (
        b"path = 5",
        b"[exposures]",
        b"a = " + b"[" * 5000,
        b"x = " + b"9" * 10_000,
        b"\xff\xfe",
        b"time = 1979-99-99",
    )
    return random.choice((mutated(MAPPING, random), MAPPING + random.choice(odd), random.choice(odd) + MAPPING))


def read_mapping_of(data: bytes) -> None:
    path = folder() / "mapping.toml"
    path.write_bytes(data)
    read_mapping(path)


KINDS: dict[str, tuple[Callable[[Random], bytes], Callable[[bytes], None]]] = {
    "safetensors headers": (weights, read_weights),
    "zstd bombs and torn deltas": (deltas, read_delta),
    "manifests": (manifests, read_manifest),
    "checkpoints' state.json": (checkpoints, read_checkpoint),
    "mapping files": (mappings, read_mapping_of),
}


def read(kind: str, count: int, seed: int = 0) -> Outcome:
    """One kind through its reader; a refusal is an error that a person can read."""
    random = Random(seed)
    make, reader = KINDS[kind]
    outcome = Outcome(kind)
    with measured(outcome) as measure:
        for _ in range(count):
            data = make(random)
            outcome.sent += 1
            measure.look(outcome.sent / count)
            try:
                reader(data)
            except OneRecError as error:
                outcome.refused[type(error).__name__] += 1
            else:
                outcome.accepted += 1
    return outcome
