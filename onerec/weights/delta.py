"""Lossless deltas: what changed between the bytes of two versions, as a small safetensors file.

Weights of neighbouring versions differ in the last bits. Their bytes, read as unsigned integers, are subtracted
modulo their width, the differences folded so that small ones of either sign are small (zigzag), split into byte
planes and compressed with zstd. Measured on bfloat16 weights after small Adam steps, subtraction needs 13 % fewer
bytes than XOR, because XOR turns a carry into many bits. Applying a delta gives the new bytes exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor

from onerec.weights.errors import CorruptWeightsError, IncompatibleWeightsError
from onerec.weights.tensors import Specs, differences, header_of, pack, raw_bytes, specs_of

ENCODING = "difference-zigzag-planes-zstd"
LEVEL = 1
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def encode(parent: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bytes:
    """The file that turns `parent` into `tensors`; unchanged tensors are left out.

    Raises IncompatibleWeightsError where names, dtypes or shapes differ: publish a full version then.
    """
    if wrong := differences(specs_of(tensors), specs_of(parent)):
        raise IncompatibleWeightsError(f"No delta between different tensors: {wrong}.", "Publish a full version.")
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    changed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        planes = _difference(raw_bytes(parent[name]), raw_bytes(tensor), tensor.dtype.itemsize)
        if planes.any():
            changed[name] = torch.frombuffer(bytearray(compressor.compress(planes.data)), dtype=torch.uint8)
    return pack(changed, {"encoding": ENCODING})


def apply(parent: Mapping[str, Tensor], data: bytes) -> dict[str, Tensor]:
    """The child of `parent`; unchanged tensors are the parent's own, changed ones are new.

    Raises CorruptWeightsError for a torn or hostile file; no more is allocated than the parent's own sizes.
    """
    specs, metadata = header_of(data)
    _check(specs, metadata, specs_of(parent))
    packed = {name: bytes(raw_bytes(tensor)) for name, tensor in safetensors.torch.load(data).items()}
    return {name: _patched(tensor, packed[name]) if name in packed else tensor for name, tensor in parent.items()}


def _check(specs: Specs, metadata: Mapping[str, str], parent: Specs) -> None:
    if metadata.get("encoding") != ENCODING:
        raise CorruptWeightsError(f"Unknown delta encoding {metadata.get('encoding')!r}.", "Update the reader.")
    for name, spec in specs.items():
        if name not in parent or spec.dtype != "U8" or len(spec.shape) != 1:
            raise CorruptWeightsError(f"The delta changes {name}, which its parent lacks.", "Publish a full version.")


def _patched(tensor: Tensor, compressed: bytes) -> Tensor:
    size = tensor.numel() * tensor.element_size()
    try:
        if zstandard.frame_content_size(compressed) != size:
            raise CorruptWeightsError("A delta does not have its tensor's size.", "Publish a full version.")
        planes = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=size)
    except zstandard.ZstdError as error:
        raise CorruptWeightsError(f"A delta does not decompress: {error}.", "Publish a full version.") from error
    words = _restored(raw_bytes(tensor), np.frombuffer(planes, np.uint8), tensor.element_size())
    return torch.from_numpy(words.view(np.uint8)).view(tensor.dtype).reshape(tensor.shape)


def _difference(old: NDArray[np.uint8], new: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Byte planes [width * words] of the zigzag of new - old."""
    word = _WORDS[width]
    gap = new.view(word) - old.view(word)
    sign = gap >> word(8 * width - 1)
    folded = (gap << word(1)) ^ (word(0) - sign)
    return np.ascontiguousarray(folded.view(np.uint8).reshape(-1, width).T).reshape(-1)


def _restored(old: NDArray[np.uint8], planes: NDArray[np.uint8], width: int) -> NDArray[np.generic]:
    """The new words: the inverse of `_difference`."""
    word = _WORDS[width]
    folded = np.ascontiguousarray(planes.reshape(width, -1).T).reshape(-1).view(word)
    gap = (folded >> word(1)) ^ (word(0) - (folded & word(1)))
    new: NDArray[np.generic] = old.view(word) + gap
    return new
