"""The store's folder on any fsspec file system: paths that cannot leave it, whole files or none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from onerec.errors import SettingsError
from onerec.secrets import without_secrets
from onerec.weights.errors import OutsideStoreError, StoreUnreachableError, VersionMissingError

_WHOLE_OR_NONE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
"""Protocols whose write is visible only when complete; elsewhere a file is written aside and renamed."""


class Folder:
    """Reads and writes below one URI."""

    def __init__(self, uri: str) -> None:
        self.uri = without_secrets(uri)
        """As sentences may show it."""
        try:
            self._fs, root = url_to_fs(uri)
        except (ImportError, ValueError, TypeError) as error:
            raise SettingsError(
                f"The weights store {self.uri} cannot be opened: {error}.", "Mend store.uri."
            ) from error
        except OSError as error:
            raise StoreUnreachableError(
                f"The weights store {self.uri} does not answer: {error}.", "Mend store.uri or its server."
            ) from error
        self._root = root.rstrip("/")
        protocol = self._fs.protocol
        self._protocols = frozenset((protocol,) if isinstance(protocol, str) else protocol)
        self._local = "file" in self._protocols

    def relative(self, uri: str) -> str:
        """The path below the store that `uri` names: relative, or absolute with the store's own scheme and root.

        Raises OutsideStoreError for everything else: another scheme, another root, `..`, a NUL, an empty path.
        """
        refused = OutsideStoreError(
            f"{without_secrets(uri[:200])!r} is outside the weights store.", "Mend the publisher."
        )
        parts = urlsplit(uri) if "://" in uri else None
        if parts is not None:
            if parts.scheme not in self._protocols or parts.query or parts.fragment:
                raise refused
            path = self._fs._strip_protocol(uri)
        else:
            path = uri
        if path.startswith("/") or parts is not None:
            if not path.startswith(self._root + "/"):
                raise refused
            path = path[len(self._root) + 1 :]
        pieces = path.split("/")
        if any(piece in {"", ".", ".."} for piece in pieces) or "\0" in path or "\\" in path:
            raise refused
        return str(PurePosixPath(path))

    def require(self) -> None:
        """Raise StoreUnreachableError where the folder is not there, on file systems that know folders."""
        if self._local and not Path(self._root).is_dir():
            raise StoreUnreachableError(
                f"The weights store {self.uri} is not there.",
                "Bring it back, or mend store.uri; to begin with an empty one, make the folder.",
            )

    def size(self, path: str) -> int:
        """Bytes of a file."""
        with self._reaching(path):
            return int(self._fs.size(self._full(path)))

    def read(self, path: str) -> bytes:
        """A whole file. Raises VersionMissingError where there is none, StoreUnreachableError."""
        with self._reaching(path):
            data: bytes = self._fs.cat_file(self._full(path))
            return data

    def write(self, path: str, data: bytes) -> None:
        """Publish a file: readers see it whole or not at all."""
        full = self._full(path)
        with self._reaching(path):
            self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
            if self._protocols & _WHOLE_OR_NONE:
                self._fs.pipe_file(full, data)
            else:
                self._write_aside(full, data)

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; none where it does not exist."""
        with self._reaching(path):
            self._fs.invalidate_cache()
            if not self._fs.exists(self._full(path)):
                return []
            found: list[Any] = self._fs.ls(self._full(path), detail=False)
            return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def remove(self, path: str) -> None:
        """Remove a file or a folder with what is in it; gone already is fine."""
        with self._reaching(path):
            if self._fs.exists(self._full(path)):
                self._fs.rm(self._full(path), recursive=True)

    def _full(self, path: str) -> str:
        """Raises OutsideStoreError where a link on the way leads out of the store."""
        full = f"{self._root}/{self.relative(path)}"
        if self._local and not Path(os.path.realpath(full)).is_relative_to(os.path.realpath(self._root)):
            raise OutsideStoreError(f"{path[:200]!r} leads out of the weights store by a link.", "Remove the link.")
        return full

    def _write_aside(self, full: str, data: bytes) -> None:
        aside = f"{full}.{uuid.uuid4().hex}.part"
        try:
            if self._local:
                with Path(aside).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(aside).replace(full)
            else:
                self._fs.pipe_file(aside, data)
                self._fs.mv(aside, full)
        except BaseException:
            if self._fs.exists(aside):
                self._fs.rm(aside)
            raise

    @contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if self._local and not Path(self._root).is_dir():
                raise StoreUnreachableError(
                    f"The weights store {self.uri} is not there.", "Mend store.uri, or start the trainer first."
                ) from error
            raise VersionMissingError(f"The weights store has no {path}.", "See `onerec versions list`.") from error
        except OSError as error:
            raise StoreUnreachableError(
                f"The weights store {self.uri} does not answer for {path}: {error}.", "Mend store.uri or its disk."
            ) from error
