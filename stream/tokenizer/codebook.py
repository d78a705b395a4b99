"""The codebook: what turns embeddings into semantic ids, as one safetensors file in the weights store.

`codebooks/<version>.safetensors` holds the centroids [L, K, d] and the semantic ids of the items that it was
fitted on; its header says how it was made and carries a SHA-256 over all of it. A version is never rewritten.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.weights.folder import Folder
from stream.tokenizer.semantic_ids import Codes, Floats, SemanticId, quantise

FOLDER = "codebooks"
FORMAT = "1"
_NAME = re.compile(r"(\d+)\.safetensors")


class CorruptCodebookError(CheckFailedError):
    """The file is torn, altered or contradicts itself."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Codebook {name} cannot be used: {problem}.", "Fit it again: `python -m stream codebook`.")


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """centroids float32 [L, K, d]; item_ids int64 [N] with their semantic ids, codes int32 [N, L]."""

    version: int
    centroids: NDArray[np.float32]
    item_ids: NDArray[np.int64]
    codes: Codes
    settings: Mapping[str, Any]

    @property
    def levels(self) -> int:
        """L."""
        return int(self.centroids.shape[0])

    @property
    def size(self) -> int:
        """K."""
        return int(self.centroids.shape[1])

    @property
    def width(self) -> int:
        """d: the width of the embeddings that it takes."""
        return int(self.centroids.shape[2])

    def assign(self, embeddings: Floats) -> Codes:
        """Codes int32 [N, L] of embeddings [N, d] by argmin, collisions or not."""
        return quantise(embeddings.astype(np.float32, copy=False), self.centroids)

    def stored(self) -> dict[int, SemanticId]:
        """The semantic ids of the items that it was fitted on."""
        return {int(item): tuple(codes) for item, codes in zip(self.item_ids, self.codes.tolist(), strict=True)}

    def sha256(self) -> str:
        """Over everything but the version: equal for codebooks that give the same ids."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).data)
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The file."""
        header = {
            "format": FORMAT,
            "version": str(self.version),
            "settings": json.dumps(self.settings, sort_keys=True),
            "sha256": self.sha256(),
        }
        return safetensors.numpy.save(self._tensors(), header)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Codebook:
        """Read and check a file. Raises CorruptCodebookError, with `name` in the sentence."""
        try:
            header = _header(data)
            if header["format"] != FORMAT:
                raise CorruptCodebookError(name, f"it has format {header['format']}, this program reads {FORMAT}")
            tensors = safetensors.numpy.load(data)
            codebook = cls(version=int(header["version"]), settings=json.loads(header["settings"]), **tensors)
            sha256 = header["sha256"]
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CorruptCodebookError(name, f"it is no codebook file ({error})") from error
        if problem := codebook._problem(sha256):
            raise CorruptCodebookError(name, problem)
        return codebook

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"centroids": self.centroids, "item_ids": self.item_ids, "codes": self.codes}

    def _problem(self, sha256: str) -> str:
        if (self.centroids.ndim, self.item_ids.ndim, self.codes.ndim) != (3, 1, 2):
            return "its tensors have the wrong shapes"
        if self.codes.shape != (len(self.item_ids), self.levels):
            return f"{len(self.item_ids)} items have codes of shape {self.codes.shape}"
        if not np.isfinite(self.centroids).all():
            return "a centroid is not finite"
        if self.codes.size and not 0 <= int(self.codes.min()) <= int(self.codes.max()) < self.size:
            return f"a code is outside of 0..{self.size - 1}"
        if len(np.unique(self.item_ids)) != len(self.item_ids) or len(np.unique(self.codes, axis=0)) != len(self.codes):
            return "two of its items share an id"
        return "" if self.sha256() == sha256 else "its checksum is wrong"


def versions(folder: Folder) -> list[int]:
    """Versions in the store, oldest first."""
    return sorted(int(match[1]) for name in folder.names(FOLDER) if (match := _NAME.fullmatch(name)))


def load(folder: Folder, version: int | None = None) -> Codebook:
    """A version, or the newest. Raises DependencyMissingError where there is none, CorruptCodebookError."""
    known = versions(folder)
    if not known or (version is not None and version not in known):
        wanted = "no codebook" if version is None else f"no codebook {version}"
        raise DependencyMissingError(f"The store {folder.uri} has {wanted}.", "Fit one: `python -m stream codebook`.")
    chosen = known[-1] if version is None else version
    codebook = Codebook.from_bytes(folder.read(_path(chosen)), _path(chosen))
    if codebook.version != chosen:
        raise CorruptCodebookError(_path(chosen), f"it says that it is version {codebook.version}")
    return codebook


def save(folder: Folder, codebook: Codebook) -> None:
    """Publish a version; readers see it whole or not at all. Raises CheckFailedError where the version exists."""
    if codebook.version in versions(folder):
        raise CheckFailedError(f"Codebook {codebook.version} exists and is never rewritten.", "Save the next version.")
    folder.write(_path(codebook.version), codebook.to_bytes())


def _path(version: int) -> str:
    return f"{FOLDER}/{version}.safetensors"


def _header(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: its JSON header follows 8 bytes with the header's length."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 + size:
        raise ValueError("it is cut short")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata
