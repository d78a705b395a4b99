"""The local copy of a partition's state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from onerec import clock
from onerec.errors import SettingsError
from onerec.state import store as store_module
from onerec.state.store import LocalStore


def test_changes_and_positions_survive_a_close(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "cluster/a")
    store.write([(b"u1", b"one"), (b"u2", b"two"), (b"h1", b"history")], {"changelog": 7})
    store.write([(b"u2", None)], {"histories": 3})
    store.close()

    again = LocalStore(tmp_path / "p0", "cluster/a")

    assert again.positions == {"changelog": 7, "histories": 3}
    assert list(again.items(b"u")) == [(b"u1", b"one")]
    assert list(again.items(b"")) == [(b"h1", b"history"), (b"u1", b"one")]
    assert again.get(b"h1") == b"history"
    assert again.get(b"u2") is None
    again.close()


def test_another_identity_empties_the_copy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "cluster/a")
    store.write([(b"u1", b"one")], {"changelog": 7})
    store.close()

    other = LocalStore(tmp_path / "p0", "cluster/b")

    assert other.positions == {}
    assert other.get(b"u1") is None
    other.close()


def test_a_copy_older_than_tombstones_live_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "p0", "a")
    store.write([(b"u1", b"one")], {"changelog": 7})
    store.close()
    later_ms = int(1000 * (time.time() + store_module.MAX_AGE_S + 60))
    monkeypatch.setattr(clock, "now_ms", lambda: later_ms)

    assert LocalStore(tmp_path / "p0", "a").positions == {}


def test_a_torn_folder_is_emptied(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "a")
    store.write([(b"u%d" % n, os.urandom(500)) for n in range(100)], {"changelog": 7})
    store.close()
    for table in (tmp_path / "p0").glob("*.sst"):
        table.write_bytes(b"torn" * 100)

    again = LocalStore(tmp_path / "p0", "a")

    assert again.positions == {}
    again.close()


@pytest.mark.parametrize(
    "meta", [b"", b"\xff", b"[]", b"{}", b'{"identity": "a", "written_s": "now", "positions": {}}', b"[" * 100_000]
)
def test_a_copy_that_does_not_say_of_what_is_emptied(tmp_path: Path, meta: bytes) -> None:
    store = LocalStore(tmp_path / "p0", "a")
    store.write([(b"u1", b"one")], {"changelog": 7})
    store.flush()
    store._db.put(store_module.META_KEY, meta)
    store.close()

    again = LocalStore(tmp_path / "p0", "a")

    assert again.positions == {}
    assert again.get(b"u1") is None
    again.close()


def test_two_stores_in_one_folder_are_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "a")

    with pytest.raises(SettingsError, match=r"store\.state_dir"):
        LocalStore(tmp_path / "p0", "a")

    store.close()


def test_clear_forgets_everything(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "a")
    store.write([(b"u1", b"one")], {"changelog": 7})

    store.clear()

    assert store.positions == {}
    assert store.get(b"u1") is None
    store.close()


def test_what_is_not_on_disk_yet_is_read_and_listed_all_the_same(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "a", flush_interval_s=1e9)
    store.write([(b"u1", b"one"), (b"u2", b"two"), (b"u3", b"three")], {"changelog": 3})
    store.flush()
    store.write([(b"u1", None), (b"u2", b"new"), (b"u4", b"four")], {"changelog": 6})

    assert [store.get(b"u%d" % number) for number in range(1, 6)] == [None, b"new", b"three", b"four", None]
    assert list(store.items(b"u")) == [(b"u2", b"new"), (b"u3", b"three"), (b"u4", b"four")]
    assert [store.get(b"u%d" % number) for number in range(1, 6)] == [None, b"new", b"three", b"four", None]
    store.close()


def test_what_is_kept_in_memory_is_bounded_and_counts_a_key_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "p0", "a", flush_interval_s=1e9)
    megabyte = bytes(2**20)
    for number in range(40):
        store.write([(b"same", megabyte)], {"changelog": number})
    assert store._pending == {b"same": megabyte}
    for number in range(40):
        store.write([(b"%d" % number, megabyte)], {"changelog": 40 + number})

    assert sum(map(len, store._pending)) < store_module.MOST_PENDING_BYTES
    assert len(store._pending) < 16
    assert store.get(b"same") == store.get(b"0") == store.get(b"39") == megabyte
    store.close()


WRITER = """
import sys
from pathlib import Path
from onerec.state.store import LocalStore
store = LocalStore(Path(sys.argv[1]), "a", flush_interval_s=0.0 if sys.argv[2] == "flushing" else 1e9)
for batch in range(1000):
    store.write([(b"value", b"%d" % batch)], {"changelog": batch})
    print(batch, flush=True)
"""


@pytest.mark.parametrize("mode", ["flushing", "never"])
def test_a_killed_writer_leaves_values_that_fit_their_positions(tmp_path: Path, mode: str) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "p0"), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 20:
                break
        writer.send_signal(signal.SIGKILL)

    store = LocalStore(tmp_path / "p0", "a")

    if mode == "flushing":
        assert store.positions["changelog"] >= 20
        assert store.get(b"value") == b"%d" % store.positions["changelog"]
    else:
        assert store.positions == {}
        assert store.get(b"value") is None
    store.close()


@pytest.mark.parametrize("opened", ["new", "again"])
def test_what_rocksdb_keeps_in_memory_is_told(tmp_path: Path, opened: str) -> None:
    store = LocalStore(tmp_path / "state", "cluster")
    store.write([(b"%d" % number, bytes(1000)) for number in range(1000)], {})
    store.flush()
    if opened == "again":  # with our cache, which all stores share, and not with one of its own
        store.close()
        store = LocalStore(tmp_path / "state", "cluster")
    before = REGISTRY.get_sample_value("onerec_state_cache_bytes")
    assert store.get(b"500") == bytes(1000)
    after = REGISTRY.get_sample_value("onerec_state_cache_bytes")
    store.close()
    assert before is not None
    assert after is not None
    assert before < after <= 64 * 2**20
