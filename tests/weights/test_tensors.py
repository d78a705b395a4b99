"""The canonical digest and the check of safetensors headers."""

from __future__ import annotations

import gc
import json

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.weights.errors import CorruptWeightsError
from onerec.weights.tensors import digest, header_of, pack, specs_of, unpack


def file(header: object, body: bytes = b"") -> bytes:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(data).to_bytes(8, "little") + data + body


def test_the_digest_depends_on_names_dtypes_shapes_and_bytes_only() -> None:
    a, b = torch.arange(6.0), torch.arange(4)
    same = digest({"a": a, "b": b})
    assert digest({"b": b, "a": a}) == same
    assert digest({"a": torch.stack([a, a], 1)[:, 0], "b": b}) == same, "strides do not matter"
    others = (
        {"a": a.reshape(2, 3), "b": b},
        {"a": a, "c": b},
        {"a": a, "b": b.double().view(torch.int64)},
        {"a": a.view(torch.int32), "b": b},
        {"a": a},
    )
    assert len({same, *(digest(other) for other in others)}) == 6


def test_a_file_of_this_library_passes() -> None:
    tensors = {"x": torch.randn(3, 2).bfloat16(), "empty": torch.empty(0, 4), "scalar": torch.tensor(1)}
    data = pack(tensors, {"key": "value"})
    assert data == safetensors.torch.save(tensors, {"key": "value"})
    assert header_of(data) == (specs_of(tensors), {"key": "value"})
    assert digest(unpack(data, specs_of(tensors))) == digest(tensors)


def test_files_of_ever_new_sizes_leave_nothing_behind() -> None:
    """A trainer writes a delta a second, each of other sizes: what stays of each is a leak."""

    def objects_after(sizes: range) -> int:
        for size in sizes:
            pack({"x": torch.zeros(size, dtype=torch.uint8)})
        gc.collect()
        return len(gc.get_objects())

    before = objects_after(range(1, 20))
    assert objects_after(range(20, 320)) - before < 300


FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        (2**63).to_bytes(8, "little") + b"{}",
        file(b"no json"),
        file([]),
        file({"a": 1}),
        file({"a": {"dtype": "F32", "shape": [1]}}),
        file({"a": FOUR}),
        file({"a": FOUR}, b"\0" * 5),
        file({"a": FOUR | {"dtype": "PICKLE"}}, b"\0" * 4),
        file({"a": FOUR | {"shape": [2**62]}}, b"\0" * 4),
        file({"a": FOUR | {"shape": 1}}, b"\0" * 4),
        file({"a": FOUR | {"data_offsets": [4, 0]}}, b"\0" * 4),
        file({"a": FOUR | {"data_offsets": [0, 4, 4]}}, b"\0" * 4),
        file({"a": FOUR | {"data_offsets": [0]}}, b"\0" * 4),
        file({"a": FOUR | {"data_offsets": [0.0, 4.0]}}, b"\0" * 4),
        file({"a": FOUR | {"data_offsets": [[], 4]}}, b"\0" * 4),
        file({"a": FOUR | {"shape": [1] * 9}}, b"\0" * 4),
        file({"a": FOUR | {"shape": [2**39] * 1_000_000}}, b"\0" * 4),
        file({"__metadata__": 5, "a": FOUR}, b"\0" * 4),
        file({"__metadata__": {"key": 5}, "a": FOUR}, b"\0" * 4),
        file({"a": FOUR, "b": FOUR}, b"\0" * 4),
        file({"a": FOUR, "b": FOUR | {"data_offsets": [8, 12]}}, b"\0" * 12),
        file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
)
def test_hostile_headers_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptWeightsError):
        header_of(data)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_consistent(data: bytes) -> None:
    try:
        specs, _ = header_of(file(data))
    except CorruptWeightsError:
        return
    assert sum(spec.size_bytes for spec in specs.values()) == 0


def test_what_the_library_refuses_is_a_corrupt_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack({"a": torch.zeros(1)})
    monkeypatch.setattr("onerec.weights.tensors.header_of", lambda _: (specs_of({"a": torch.zeros(1)}), {}))
    with pytest.raises(CorruptWeightsError, match="cannot be read"):
        unpack(data[:-1], specs_of({"a": torch.zeros(1)}))
