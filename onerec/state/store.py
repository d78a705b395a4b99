"""One partition's state on local disk: RocksDB that knows how far it has come in the topics it mirrors.

The topics are the truth, this is their copy. There is no write-ahead log: changes are kept in memory, the newest of
each key, and every few seconds go to disk with the topics' positions as one write batch. So a key that changes with
every transaction costs RocksDB one write in that time. After a crash the folder holds the state as of some earlier
batch together with that batch's positions; reading the topics from there on repairs it. Whatever is wrong with the
folder (torn, of another cluster, too old), it is emptied and filled again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from prometheus_client import Gauge
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from onerec import clock
from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError

LOG = logging.getLogger(__name__)
META_KEY = b"\x00meta"
FLUSH_INTERVAL_S = 5.0
MAX_AGE_S = 12 * 3600.0
"""A copy older than this is not continued: Kafka drops a compacted topic's tombstones after `delete.retention.ms`
(a day by default), and a copy that has missed one would keep the deleted key for ever."""
BLOCK_CACHE_BYTES = 64 * 1024 * 1024
WRITE_BUFFER_BYTES = 64 * 1024 * 1024
MEMTABLE_BYTES = 16 * 1024 * 1024
MOST_PENDING_BYTES = 16 * 1024 * 1024
"""Of changes that a store keeps before it gives them to RocksDB; a restore brings more than that."""
PENDING_KEY_BYTES = 200
"""What a kept change takes beside its value: key, objects and the dictionary's place."""
BLOOM_BITS_PER_KEY = 10
UNWRITABLE = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES))
"""What RocksDB says where the disk is at fault and the folder is not: emptying it would mend nothing."""

_CACHE = Cache(BLOCK_CACHE_BYTES)  # one for all stores of the process
CACHED = Gauge("onerec_state_cache_bytes", "Blocks of local state that RocksDB keeps in memory: 64 MiB at most.")
CACHED.set_function(_CACHE.get_usage)
_WRITE_BUFFERS = WriteBufferManager(WRITE_BUFFER_BYTES, allow_stall=False)


class LocalStore:
    """Raw bytes by raw bytes. Keys that start with a zero byte are its own. One process, one thread."""

    def __init__(
        self,
        directory: Path,
        identity: str,
        *,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        """Open the folder or make it; a copy of another `identity` (cluster, topics) or too old is emptied.

        Raises SettingsError where another process has it open and DependencyMissingError where it cannot be made.
        """
        self.directory = directory
        self._identity = identity
        self._flush_interval_s = flush_interval_s
        self._max_age_s = max_age_s
        self._positions: dict[str, int] = {}
        self._pending: dict[bytes, bytes | None] = {}
        """What RocksDB does not have yet; None deletes. Goes with the positions, as one batch."""
        self._pending_bytes = 0
        self._dirty = False
        self._flushed_s = time.monotonic()
        self._options = WriteOptions()
        self._options.disable_wal = True  # type: ignore[method-assign, assignment] # a property; its stub is wrong
        self._db = self._open()

    @property
    def positions(self) -> dict[str, int]:
        """By name of the caller's choice, the next offset of each topic that this copy has to read."""
        return dict(self._positions)

    def get(self, key: bytes) -> bytes | None:
        """The value; None where there is none. Raises CheckFailedError where the folder is damaged."""
        if key in self._pending:
            return self._pending[key]
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:  # rocksdict raises plain Exception
            raise self._damaged(error) from error
        return value

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All keys with this prefix, in order, with their values.

        Raises CheckFailedError as `get` and DependencyMissingError as `write`.
        """
        self._write_pending()
        try:
            for key, value in cast("Iterator[tuple[bytes, bytes]]", self._db.items(from_key=prefix)):
                if not key.startswith(prefix):
                    return
                if key != META_KEY:
                    yield key, value
        except Exception as error:
            raise self._damaged(error) from error

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        """Apply changes (None deletes) and positions as one batch, and put all on disk where that is due.

        Raises DependencyMissingError where the disk does not take it.
        """
        pending = self._pending
        for key, value in changes:
            self._pending_bytes += len(value or b"") - len(pending.get(key) or b"")
            pending[key] = value
        self._positions.update(positions)
        self._dirty = True
        if time.monotonic() - self._flushed_s >= self._flush_interval_s:
            self.flush()
        elif self._pending_bytes + PENDING_KEY_BYTES * len(pending) >= MOST_PENDING_BYTES:
            self._write_pending()

    def flush(self) -> None:
        """Put everything on disk. Raises DependencyMissingError where the disk does not take it."""
        self._write_pending()
        try:
            self._db.flush()
        except Exception as error:
            raise self._unwritable(error) from error
        self._dirty = False
        self._flushed_s = time.monotonic()

    def close(self) -> None:
        """Put everything on disk and let go of the folder, for good.

        Where the disk does not take it, the folder is left as of an earlier batch with that batch's positions, and
        the topics are read from there again: nothing is lost, and a warning says so.
        """
        try:
            if self._dirty:
                self.flush()
        except DependencyMissingError as error:
            LOG.warning("%s", error)
        self._dirty = False
        self._let_go(self._db)

    def clear(self) -> None:
        """Empty the folder: the state is to be read from its topics again."""
        self._let_go(self._db)
        self._positions = {}
        self._pending, self._pending_bytes = {}, 0
        self._dirty = False
        shutil.rmtree(self.directory, ignore_errors=True)
        self._db = self._opened()

    def _open(self) -> Rdict:
        db = self._opened()
        problem = self._problem(db)
        if problem is None:
            return db
        self._let_go(db)
        LOG.warning("local state %s: %s; it is filled again from its topics", self.directory, problem)
        shutil.rmtree(self.directory, ignore_errors=True)
        return self._opened()

    def _opened(self) -> Rdict:
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            return _rocksdb(self.directory)
        except Exception as error:
            if "lock" in str(error).lower():
                raise SettingsError(
                    f"Local state {self.directory} is in use by another process.",
                    "Give each process its own store.state_dir.",
                ) from error
            if any(said in str(error) for said in UNWRITABLE):
                raise self._unwritable(error) from error
            LOG.warning("local state %s cannot be opened (%s); it is filled again", self.directory, error)
        shutil.rmtree(self.directory, ignore_errors=True)
        try:
            return _rocksdb(self.directory)
        except Exception as error:
            raise self._unwritable(error) from error

    def _problem(self, db: Rdict) -> str | None:
        """Why what the folder holds cannot be continued; None where it can. Reads the positions."""
        try:
            packed: bytes | None = db.get(META_KEY)
        except Exception as error:
            return f"is damaged ({error})"
        if packed is None:
            return None  # new, or killed before anything was put on disk
        try:
            meta: dict[str, Any] = json.loads(packed)
            is_ours = meta["identity"] == self._identity
            is_recent = 0 <= clock.now_ms() / 1000 - meta["written_s"] <= self._max_age_s
            positions = {str(name): int(at) for name, at in meta["positions"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            return f"does not say what it is a copy of ({error!r})"
        if not is_ours:
            return "is of another cluster or other topics"
        if not is_recent:
            return "was last written too long ago, or in the future"
        self._positions = positions
        return None

    def _meta(self) -> bytes:
        meta = {"identity": self._identity, "positions": self._positions, "written_s": clock.now_ms() / 1000}
        return json.dumps(meta).encode()

    def _write_pending(self) -> None:
        """Give RocksDB what it does not have yet, with the positions that it then stands for."""
        if not self._dirty:
            return
        batch = WriteBatch(raw_mode=True)
        for key, value in self._pending.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(META_KEY, self._meta())
        try:
            self._db.write(batch, self._options)
        except Exception as error:
            raise self._unwritable(error) from error
        self._pending, self._pending_bytes = {}, 0

    def _let_go(self, db: Rdict) -> None:
        """Close RocksDB. It flushes in that, and where the disk does not take it, says so and lets go all the same."""
        try:
            db.close()
        except Exception as error:
            LOG.warning("local state %s was closed without its newest changes: %s", self.directory, error)

    def _damaged(self, error: Exception) -> CheckFailedError:
        """Take the folder away, so that the next start fills it again, and say so."""
        self._let_go(self._db)
        shutil.rmtree(self.directory, ignore_errors=True)
        return CheckFailedError(
            f"Local state {self.directory} is damaged: {error}.", "It was removed; start again to restore it."
        )

    def _unwritable(self, error: Exception) -> DependencyMissingError:
        return DependencyMissingError(
            f"Local state {self.directory} cannot be written: {error}.",
            "Free the disk, or set store.state_dir; nothing is lost, the topics hold the state.",
        )


def _rocksdb(directory: Path) -> Rdict:
    """RocksDB with our options, in an old folder too.

    They are given for the column family as well: else rocksdict opens a folder that exists with the options that the
    folder names, where our cache and bound of write buffers, which all stores share, are not among them.
    """
    options = _rocksdb_options()
    return Rdict(str(directory), options, column_families={"default": options})


def _rocksdb_options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_write_buffer_manager(_WRITE_BUFFERS)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1024 * 1024)
    options.set_stats_dump_period_sec(0)
    table = BlockBasedOptions()
    table.set_block_cache(_CACHE)
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    options.set_block_based_table_factory(table)
    return options
