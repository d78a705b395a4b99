"""Versions of the model on any fsspec file system: full ones, and lossless deltas upon their parents.

    versions/00000012/manifest.json            written last: with it the version exists
    versions/00000012/delta-0f3a….safetensors  named after the digest, so that a rewrite never tears a reader

Only safetensors are read, never pickle. What a file claims is checked before anything is allocated, and the
SHA-256 of the full weights before anything is handed out.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from onerec.weights import delta
from onerec.weights.errors import (
    CorruptWeightsError,
    IncompatibleWeightsError,
    StoreUnreachableError,
    VersionMissingError,
)
from onerec.weights.manifest import Manifest
from onerec.weights.shelf import MANIFEST, Shelf, place
from onerec.weights.tensors import TensorSpec, differences, digest, pack, specs_of, unpack

if TYPE_CHECKING:
    from onerec.weights.signature import Signer, Verifier

SEED_VERSION = 1
_HEADER_ALLOWANCE = 16 * 2**20
_AGAIN = "Publish the version again."
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published file: what ModelVersion says of it. `uri` is relative to the store."""

    uri: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version's verified tensors, as published. They may be shared with the parent: do not write to them."""

    version: int
    tensors: Mapping[str, Tensor]
    sha256: str


class WeightsStore(Shelf):
    """The versions with their tensors: one writer, any number of readers."""

    def __init__(self, uri: str, *, signer: Signer | None = None, verifier: Verifier | None = None) -> None:
        """What is written is signed by `signer`; what `verifier` does not verify is not read."""
        super().__init__(uri, verifier=verifier)
        self._signer = signer
        self._known: dict[int, Manifest] = {}
        self._written: int | None = None
        """What this process wrote last."""

    def write_full(
        self, version: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None
    ) -> Artifact:
        """Publish all tensors. `facts` (JSON) go into the manifest: step, preset, offsets, metrics and so on.

        Raises StoreUnreachableError, also where the store is not the one that this process wrote to before.
        """
        return self._publish(version, tensors, pack(tensors), facts)

    def write_delta(
        self,
        version: int,
        parent: int,
        parent_tensors: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Publish what changed since `parent`, whose tensors must be those in the store.

        Raises IncompatibleWeightsError where names, dtypes or shapes differ, the parent is another, or it lacks a
        signature though this version gets one; VersionMissingError where the store does not have the parent;
        StoreUnreachableError as `write_full`.
        """
        sha = digest(parent_tensors)
        known = self._cached(parent)
        if self._signer is not None and known.signature is None:
            raise IncompatibleWeightsError(f"Version {parent} is not signed.", "Publish a full version.")
        if known.sha256 != sha:
            raise IncompatibleWeightsError(
                f"Version {parent} in the store has other weights.", "Publish a full version."
            )
        data = delta.encode(parent_tensors, tensors)
        return self._publish(version, tensors, data, facts, parent=parent, parent_sha=sha)

    def read(self, version: int, have: Loaded | None = None, shapes: Shapes | None = None) -> Loaded:
        """The tensors of `version`, from `have` or the nearest full version, whichever is nearer.

        `shapes` are the names and shapes that the model needs, checked before anything is allocated.
        Raises VersionMissingError, CorruptWeightsError, IncompatibleWeightsError, StoreUnreachableError; what was
        loaded before stays as it was.
        """
        if have is not None and have.version == version and self.manifest(version).sha256 == have.sha256:
            return have
        chain, base = self._chain(version, have)
        target = chain[0]
        if shapes is not None and (wrong := differences(_specs(target), _as_stored(shapes, target))):
            raise IncompatibleWeightsError(
                f"Version {version} is of another model: {wrong}.", "Mend model.preset or model.decoder."
            )
        for link in chain[1:]:  # before their files are read, which are as large as they say
            if wrong := differences(_specs(link), _specs(target)):
                raise CorruptWeightsError(f"Version {link.version} has other tensors than its child: {wrong}.", _AGAIN)
        tensors = dict(base.tensors) if base is not None else {}
        for link in reversed(chain):
            data = self._file(link)
            tensors = delta.apply(tensors, data) if link.kind == "delta" else unpack(data, _specs(link))
        found = digest(tensors)
        if found != target.sha256:
            raise CorruptWeightsError(
                f"Version {version} has SHA-256 {found}, its manifest says {target.sha256}.", _AGAIN
            )
        return Loaded(version, tensors, found)

    def collect(self, keep: int, pinned: Collection[int] = ()) -> list[int]:
        """Remove old versions but the newest `keep`, those pinned, the seed, and every base that one of these needs.

        Returns what was removed.
        """
        places = self.places()
        whole = [version for version in places if self._has(version)]
        needed = set(whole[-keep:]) | ({SEED_VERSION, *pinned} & set(whole))
        for version in sorted(needed, reverse=True):
            parent = self._cached(version).parent
            while parent is not None and parent not in needed and self._has(parent):
                needed.add(parent)
                parent = self._cached(parent).parent
        newest = whole[-1] if whole else 0
        removed = [version for version in places if version not in needed and version < newest]
        for version in removed:
            self.folder.remove(f"{place(version)}/{MANIFEST}")
            self.folder.remove(place(version))
            self._known.pop(version, None)
        return removed

    def _publish(
        self,
        version: int,
        tensors: Mapping[str, Tensor],
        data: bytes,
        facts: Mapping[str, Any] | None,
        *,
        parent: int | None = None,
        parent_sha: str | None = None,
    ) -> Artifact:
        sha = digest(tensors)
        kind = "full" if parent is None else "delta"
        manifest = Manifest(
            version=version,
            kind=kind,
            file=f"{kind}-{sha[:12]}.safetensors",
            sha256=sha,
            size_bytes=len(data),
            tensors={name: (spec.dtype, spec.shape) for name, spec in specs_of(tensors).items()},
            parent=parent,
            parent_sha256=parent_sha,
            created_ms=time.time_ns() // 1_000_000,
            facts=dict(facts or {}),
        )
        if self._signer is not None:
            manifest = replace(manifest, signature=self._signer.sign(manifest))
        path = f"{place(version)}/{manifest.file}"
        self._check_still_there()  # a folder that was moved away would be made anew, and be another store
        self.folder.write(path, data)
        self.folder.write(f"{place(version)}/{MANIFEST}", manifest.to_json())
        self._check_still_there()
        self._known[version], self._written = manifest, version
        for name in self.folder.names(place(version)):
            if name not in {manifest.file, MANIFEST}:
                self.folder.remove(f"{place(version)}/{name}")
        return Artifact(path, sha, len(data))

    def _check_still_there(self) -> None:
        """Raise StoreUnreachableError where what was written last is gone: it is the newest, so nobody collects it."""
        if self._written is not None and MANIFEST not in self.folder.names(place(self._written)):
            raise StoreUnreachableError(
                f"The weights store {self.folder.uri} lacks version {self._written}, which was written to it last: it "
                "was moved, emptied or unmounted.",
                "Bring it back; to begin with an empty one, start the trainer again.",
            )

    def _chain(self, version: int, have: Loaded | None) -> tuple[list[Manifest], Loaded | None]:
        """Manifests from `version` back to a full one or to the child of `have`."""
        chain = [self.manifest(version)]
        while (parent := chain[-1].parent) is not None:
            sha = chain[-1].parent_sha256
            if have is not None and have.version == parent and have.sha256 == sha:
                return chain, have
            try:
                chain.append(self.manifest(parent))
            except VersionMissingError as error:
                raise VersionMissingError(
                    f"Version {version} needs version {parent}, which the store no longer has.", "Pin another one."
                ) from error
            if chain[-1].sha256 != sha:
                raise CorruptWeightsError(f"Version {parent} is not the parent that its delta was made from.", _AGAIN)
        return chain, None

    def _file(self, manifest: Manifest) -> bytes:
        """The file's bytes, of the size that the manifest says and its tensors allow."""
        path = f"{place(manifest.version)}/{manifest.file}"
        limit = 2 * sum(spec.size_bytes for spec in _specs(manifest).values()) + _HEADER_ALLOWANCE
        size = self.folder.size(path)
        if size != manifest.size_bytes or size > limit:
            raise CorruptWeightsError(
                f"The file of version {manifest.version} has {size} bytes, not {manifest.size_bytes}.", _AGAIN
            )
        return self.folder.read(path)

    def _has(self, version: int) -> bool:
        try:
            self._cached(version)
        except (VersionMissingError, CorruptWeightsError):
            return False
        return True

    def _cached(self, version: int) -> Manifest:
        if version not in self._known:
            self._known[version] = self.manifest(version)
        return self._known[version]


def _specs(manifest: Manifest) -> dict[str, TensorSpec]:
    return {name: TensorSpec.parse(dtype, list(shape)) for name, (dtype, shape) in manifest.tensors.items()}


def _as_stored(shapes: Shapes, manifest: Manifest) -> dict[str, TensorSpec]:
    """The wanted shapes with the dtypes that the version has: versions may be published in any."""
    specs = _specs(manifest)
    return {name: TensorSpec(specs[name].dtype if name in specs else "F32", shape) for name, shape in shapes.items()}
