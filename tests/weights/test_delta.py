"""Deltas give back the published bytes exactly, are small for small steps, and refuse what is torn or hostile."""

from __future__ import annotations

import json

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onerec.weights import delta
from onerec.weights.errors import CorruptWeightsError, IncompatibleWeightsError
from onerec.weights.tensors import DTYPES, digest, pack, raw_bytes

dtypes = st.sampled_from(sorted(DTYPES))
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
names = st.text("abc.é", min_size=1, max_size=5)


@st.composite
def tensor_of(draw: st.DrawFn, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = torch.Size(shape).numel()
    if dtype is torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype).reshape(shape)
    size = count * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    return torch.frombuffer(data, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    parent, child = {}, {}
    for name in draw(st.lists(names, unique=True, max_size=4)):
        dtype, shape = DTYPES[draw(dtypes)], draw(shapes)
        parent[name] = draw(tensor_of(dtype, shape))
        child[name] = parent[name].clone() if draw(st.booleans()) else draw(tensor_of(dtype, shape))
    return parent, child


@given(neighbours())
@settings(max_examples=150, deadline=None)
def test_any_bytes_of_any_dtype_and_shape_come_back(pair: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    parent, child = pair
    before = digest(parent)
    applied = delta.apply(parent, delta.encode(parent, child))
    assert digest(applied) == digest(child)
    assert all(bytes(raw_bytes(applied[name])) == bytes(raw_bytes(child[name])) for name in child)
    assert digest(parent) == before


def test_unchanged_tensors_are_left_out_and_shared() -> None:
    parent = {"a": torch.randn(64, 64), "b": torch.randn(64)}
    child = {"a": parent["a"].clone(), "b": parent["b"] + 1}
    data = delta.encode(parent, child)
    assert len(data) < 1024
    applied = delta.apply(parent, data)
    assert applied["a"] is parent["a"]
    assert torch.equal(applied["b"], child["b"])


def test_a_small_step_takes_a_small_share() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = {f"w{i}": torch.randn(200, 100, generator=generator) * 0.05 for i in range(10)}
    parent = {name: w.bfloat16() for name, w in weights.items()}
    # an Adam step at lr 1e-4 in a noisy online stream moves a weight by a quarter of the learning rate
    child = {name: (w + 2.5e-5 * torch.randn(w.shape, generator=generator)).bfloat16() for name, w in weights.items()}
    assert len(delta.encode(parent, child)) < 0.12 * 10 * 200 * 100 * 2


def test_other_tensors_are_refused() -> None:
    parent = {"a": torch.zeros(4)}
    for child in ({"a": torch.zeros(5)}, {"a": torch.zeros(4, dtype=torch.float16)}, {"b": torch.zeros(4)}, {}):
        with pytest.raises(IncompatibleWeightsError, match="Publish a full version"):
            delta.encode(parent, child)


def _blob(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(zstandard.compress(data)), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("blobs", "changed", "encoding"),
    [
        ({}, ["a"], delta.ENCODING),
        ({"symbols.4": _blob(b"\0"), "large.4": _blob(b"")}, ["zz"], delta.ENCODING),
        ({"symbols.4": _blob(b"\0"), "large.4": _blob(b"")}, ["a", "a"], delta.ENCODING),
        ({"symbols.4": _blob(b"\0"), "large.4": _blob(b"")}, "a", delta.ENCODING),
        ({"symbols.4": _blob(b"\0"), "large.4": _blob(b"")}, ["a"], "pickle"),
        ({"symbols.4": _blob(b"\0" * 10**7), "large.4": _blob(b"")}, ["a"], delta.ENCODING),
        ({"symbols.4": _blob(b"\xff"), "large.4": _blob(b"\0" * 10**7)}, ["a"], delta.ENCODING),
        ({"symbols.4": _blob(b"\xff"), "large.4": _blob(b"\0" * 3)}, ["a"], delta.ENCODING),
        ({"symbols.4": torch.zeros(9, dtype=torch.uint8), "large.4": _blob(b"")}, ["a"], delta.ENCODING),
        ({"symbols.4": torch.zeros(3), "large.4": _blob(b"")}, ["a"], delta.ENCODING),
    ],
)
def test_hostile_deltas_are_refused(blobs: dict[str, Tensor], changed: object, encoding: str) -> None:
    data = pack(blobs, {"encoding": encoding, "changed": json.dumps(changed)})
    with pytest.raises(CorruptWeightsError):
        delta.apply({"a": torch.zeros(4)}, data)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_delta_is_refused_or_gives_other_weights(data: st.DataObject) -> None:
    parent = {"a": torch.arange(40.0), "b": torch.arange(6, dtype=torch.int64)}
    child = {"a": parent["a"] * 1.001, "b": parent["b"] + 1}
    good = bytearray(delta.encode(parent, child))
    if data.draw(st.booleans()):
        damaged = bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    else:
        at = data.draw(st.integers(0, len(good) - 1))
        good[at] ^= data.draw(st.integers(1, 255))
        damaged = bytes(good)
    try:
        applied = delta.apply(parent, damaged)
    except CorruptWeightsError:
        return
    assert {name: tensor.shape for name, tensor in applied.items()} == {"a": (40,), "b": (6,)}


@pytest.mark.parametrize("changed", ["5", "null", "{}", '[["a"]]', "[" * 100_000], ids=lambda text: text[:8])
def test_a_delta_that_does_not_list_names_is_refused(changed: str) -> None:
    with pytest.raises(CorruptWeightsError):
        delta.apply({"a": torch.zeros(4)}, pack({}, {"encoding": delta.ENCODING, "changed": changed}))
