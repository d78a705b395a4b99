"""Which versions a store has, and their manifests. No torch in here, so that the command line is quick."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from onerec.weights.errors import CorruptWeightsError, StoreUnreachableError
from onerec.weights.folder import Folder
from onerec.weights.manifest import Manifest

if TYPE_CHECKING:  # it loads the library of keys, which a store without signatures does without
    from onerec.weights.signature import Verifier

MANIFEST = "manifest.json"
_VERSION = re.compile(r"\d{8,}")
_MAX_MANIFEST_BYTES = 64 * 2**20
_AGAIN = "Publish the version again."


class Shelf:
    """The versions of a store by number."""

    def __init__(self, uri: str, *, verifier: Verifier | None = None) -> None:
        """With a `verifier` a manifest that it does not verify is not handed out."""
        self.folder = Folder(uri)
        self._verifier = verifier

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version.

        Raises VersionMissingError, CorruptWeightsError, WrongSignatureError, StoreUnreachableError.
        """
        path = f"{place(version)}/{MANIFEST}"
        if self.folder.size(path) > _MAX_MANIFEST_BYTES:
            raise CorruptWeightsError(f"The manifest of version {version} is too large.", _AGAIN)
        manifest = Manifest.parse(self.folder.read(path), version)
        if self._verifier is not None:
            self._verifier.check(manifest)
        return manifest

    def versions(self) -> list[int]:
        """All versions that have a manifest, ascending."""
        return [version for version in self.places() if MANIFEST in self.folder.names(place(version))]

    def check_there(self) -> None:
        """Raise StoreUnreachableError where the store is not there or empty, as the place of an unmounted disk is."""
        if not self.places():
            raise StoreUnreachableError(
                f"The weights store {self.folder.uri} is not there, or empty.", "Bring it back, or mend store.uri."
            )

    def check_uri(self, uri: str, version: int) -> None:
        """Refuse a ModelVersion whose file is not that version's in this store. Raises OutsideStoreError."""
        path = self.folder.relative(uri)
        if not path.startswith(f"{place(version)}/"):
            raise CorruptWeightsError(f"{uri[:200]!r} is no file of version {version}.", _AGAIN)

    def places(self) -> list[int]:
        """All versions that have a folder, ascending, with or without a manifest."""
        return sorted(int(name) for name in self.folder.names("versions") if _VERSION.fullmatch(name))


def place(version: int) -> str:
    """The folder of a version."""
    return f"versions/{version:08d}"
