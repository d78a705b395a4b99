"""The manifest beside each version: what the file is, what it builds on, what it must hold.

No torch in here, so that listing versions starts quickly.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onerec.weights.errors import CorruptWeightsError

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"(full|delta)-[0-9a-f]{12}\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version in the store. `facts` holds what the publisher adds: the other fields of its ModelVersion."""

    version: int
    kind: str
    file: str
    sha256: str
    size_bytes: int
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    parent: int | None = None
    parent_sha256: str | None = None
    created_ms: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    signature: str | None = None
    """Over `canonical`, see onerec.weights.signature."""

    def to_json(self) -> bytes:
        """The manifest file."""
        values = self._values() if self.signature is None else self._values() | {"signature": self.signature}
        return json.dumps(values, separators=(",", ":"), allow_nan=False).encode()

    def canonical(self) -> bytes:
        """Everything but the signature, in the one form that is signed."""
        return json.dumps(self._values(), separators=(",", ":"), allow_nan=False, sort_keys=True).encode()

    def _values(self) -> dict[str, Any]:
        return {"format": FORMAT, **{name: getattr(self, name) for name in self.__slots__ if name != "signature"}}

    @classmethod
    def parse(cls, data: bytes, version: int) -> Manifest:
        """Read and check a manifest file of `version`. Raises CorruptWeightsError."""
        try:
            values = json.loads(data, parse_constant=_finite, parse_float=_finite)  # NaN could not be written again
            if values.pop("format") != FORMAT:
                raise ValueError("unknown format")
            tensors = {str(name): (str(dtype), tuple(shape)) for name, (dtype, shape) in values.pop("tensors").items()}
            manifest = cls(tensors=tensors, **values)
            if problem := manifest._problem(version):
                raise ValueError(problem)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptWeightsError(
                f"The manifest of version {version} is torn or wrong: {error}.", "Publish the version again."
            ) from error
        return manifest

    def _problem(self, version: int) -> str:
        kinship = (self.kind == "delta") == (self.parent is not None) and self.kind in {"full", "delta"}
        earlier = self.parent is None or (type(self.parent) is int and 0 < self.parent < version)
        checks = (
            (self.version == version and _is_long(version), f"it says version {self.version}"),
            (_FILE.fullmatch(self.file), "its file name is none"),
            (_SHA256.fullmatch(self.sha256), "its sha256 is none"),
            (_is_long(self.size_bytes), "its size is none"),
            (kinship, "a delta has a parent, a full version none"),
            (earlier, "its parent is no earlier version"),
            (self.parent_sha256 is None or _SHA256.fullmatch(self.parent_sha256), "its parent's sha256 is none"),
            (_is_long(self.created_ms), "its time is none"),
            (isinstance(self.facts, dict) and _are_measures(self.facts.get("metrics", {})), "its facts are none"),
            (all(_is_shape(shape) for _, shape in self.tensors.values()), "a shape is none"),
            (self.signature is None or isinstance(self.signature, str), "its signature is none"),
        )
        return "; ".join(problem for holds, problem in checks if not holds)


def _is_long(number: Any) -> bool:
    """Whether it is a number that a record can hold, not negative."""
    return type(number) is int and 0 <= number < 2**63


def _are_measures(metrics: Any) -> bool:
    return isinstance(metrics, dict) and all(type(value) in (int, float) for value in metrics.values())


def _is_shape(sizes: tuple[Any, ...]) -> bool:
    return all(type(size) is int and size >= 0 for size in sizes)


def _finite(text: str) -> float:
    """A number of JSON. Raises ValueError for NaN and infinity, written out or as a power."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return number
