"""Named tensors as bytes: their specification, their canonical digest, and safetensors checked before allocation."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from onerec.weights.errors import CorruptWeightsError

DTYPES: dict[str, torch.dtype] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The dtypes a version may hold, by their names in safetensors."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER_BYTES = 16 * 2**20
MAX_DIMENSIONS = 8
"""The product of a million sizes takes hours to compute."""
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """dtype (safetensors' name) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor's elements."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """Describe `tensor`. Raises KeyError for a dtype that versions do not hold."""
        return cls(_NAMES[tensor.dtype], tuple(tensor.shape))

    @classmethod
    def parse(cls, dtype: Any, shape: Any) -> TensorSpec:
        """Check what a file claims. Raises CorruptWeightsError."""
        if dtype not in DTYPES:
            raise CorruptWeightsError(f"{dtype!r} is no dtype of a weights file.", "Publish the version again.")
        sizes = isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS
        if not sizes or not all(type(size) is int and 0 <= size < 2**40 for size in shape):
            raise CorruptWeightsError(f"{str(shape)[:80]} is no shape.", "Publish the version again.")
        return cls(dtype, tuple(shape))


Specs = Mapping[str, TensorSpec]


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Specification of every tensor, sorted by name."""
    return {name: TensorSpec.of(tensors[name]) for name in sorted(tensors)}


def raw_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The elements' bytes, without a copy where the tensor is contiguous and on the CPU."""
    flat: NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex over name, dtype, shape and bytes of every tensor, in order of names.

    Equal for equal weights, however they were stored or sent.
    """
    sha = hashlib.sha256()
    for name, spec in specs_of(tensors).items():
        sha.update(json.dumps([name, spec.dtype, list(spec.shape)]).encode())
        sha.update(raw_bytes(tensors[name]).data)
    return sha.hexdigest()


def differences(specs: Specs, expected: Specs) -> str:
    """What differs, as a short sentence; empty where nothing does."""
    missing, extra = sorted(expected.keys() - specs.keys()), sorted(specs.keys() - expected.keys())
    changed = [
        f"{name} is {specs[name].dtype}{list(specs[name].shape)}, expected {spec.dtype}{list(spec.shape)}"
        for name, spec in sorted(expected.items())
        if name in specs and specs[name] != spec
    ]
    parts = [f"missing: {', '.join(missing[:3])}"] * bool(missing) + [f"unknown: {', '.join(extra[:3])}"] * bool(extra)
    return "; ".join(parts + changed[:3])


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file in memory.

    Not by `safetensors.torch.save`, which makes a ctypes pointer type for each number of bytes that it meets; ctypes
    keeps these for ever, and a trainer meets new numbers in each delta.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {
        name: safetensors.TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=list(tensor.shape),
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for name, tensor in contiguous.items()
    }
    return bytes(safetensors.serialize(described, dict(metadata) if metadata else None))


def header_of(data: bytes) -> tuple[dict[str, TensorSpec], dict[str, str]]:
    """Parse and check a safetensors header: specifications and metadata, nothing allocated for tensors.

    Raises CorruptWeightsError for a torn or hostile header: bad length, bad JSON, unknown dtypes, offsets that
    overlap, leave gaps or do not match shapes and file size.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or length > min(MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        raise CorruptWeightsError("The weights file is torn: its header is not whole.", "Publish the version again.")
    try:
        header = json.loads(data[_LENGTH_BYTES:start])
        metadata = _metadata(header.pop("__metadata__", {}))
        spans = sorted(_span(name, entry) for name, entry in header.items())
        specs = {name: TensorSpec.parse(header[name]["dtype"], header[name]["shape"]) for _, _, name in spans}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptWeightsError(f"The weights file has no valid header: {error}.", "Publish it again.") from error
    position = 0
    for first, end, name in spans:
        if first != position or end - first != specs[name].size_bytes:
            raise CorruptWeightsError(f"Offsets of {name} are wrong in the weights file.", "Publish it again.")
        position = end
    if start + position != len(data):
        raise CorruptWeightsError(
            f"The weights file is torn: {len(data)} bytes, {start + position} expected.", "Publish it again."
        )
    return specs, metadata


def unpack(data: bytes, expected: Specs) -> dict[str, Tensor]:
    """Tensors of a safetensors file that must hold exactly `expected`. Raises CorruptWeightsError."""
    specs, _ = header_of(data)
    if wrong := differences(specs, expected):
        raise CorruptWeightsError(f"The weights file is not what its manifest says: {wrong}.", "Publish it again.")
    return load(data)


def load(data: bytes) -> dict[str, Tensor]:
    """Tensors of a file whose header `header_of` has checked. Raises CorruptWeightsError for what it let through."""
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise CorruptWeightsError(f"The weights file cannot be read: {error}.", "Publish it again.") from error


def _metadata(found: Any) -> dict[str, str]:
    """Raises TypeError where it is no mapping of text to text."""
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise TypeError("__metadata__ is no mapping of text to text")
    return found


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor's bytes begin and end. Raises TypeError or ValueError where that is not said by two numbers."""
    first, end = entry["data_offsets"]
    if type(first) is not int or type(end) is not int:
        raise TypeError(f"data_offsets of {name[:80]} are no whole numbers")
    return first, end, name
