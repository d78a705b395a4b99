"""Changes to files as steps of a bus: the process can die before each of them.

Python tells an audit hook of every file that is opened for writing, made, renamed or removed, before it happens.
What is written is on disk only once it is synced: a process that dies at an fsync leaves half of the file.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from onerec.state.store import LocalStore
from tests.recovery.bus import Bus, Crash

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_watched: list[tuple[Bus, str]] = []
_hooked: list[bool] = []
_WRITE = LocalStore.write


def watch(monkeypatch: pytest.MonkeyPatch, bus: Bus, folder: Path) -> None:
    """Changes below `folder` are steps of `bus` until the test ends; RocksDB's own files are not (see `local`)."""
    if not _hooked:  # a hook stays for good
        sys.addaudithook(_audit)
        _hooked.append(True)
    monkeypatch.setattr(f"{__name__}._watched", [(bus, f"{folder}/")])
    sync = os.fsync

    def fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.startswith(f"{folder}/"):
            try:
                bus.step(f"sync {Path(path).name}")
            except Crash:
                if os.path.isfile(path):
                    os.truncate(handle, os.fstat(handle).st_size // 2)
                raise
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def picture(folder: Path, to: Path, step: str) -> None:
    """Keep all files of `folder` in `to` as a crash before `step` would leave them."""
    shutil.copytree(folder, to, copy_function=_keep)
    if step.startswith("sync "):
        for torn in to.rglob(step.removeprefix("sync ")):
            if torn.is_file() and torn.parent.name.endswith(".partial") | torn.name.endswith(".part"):
                whole = torn.read_bytes()
                torn.unlink()
                torn.write_bytes(whole[: len(whole) // 2])


def local(monkeypatch: pytest.MonkeyPatch, bus: Bus, *, at_once: bool = False) -> None:
    """Each write batch of a local store is a step of `bus`; `at_once` it is on disk, not when it is next flushed."""

    def stepping(store: LocalStore, *arguments: Any) -> None:
        bus.step("local write")
        _WRITE(store, *arguments)
        if at_once:
            store.flush()

    monkeypatch.setattr(LocalStore, "write", stepping)


def _keep(source: str, target: str) -> None:
    """RocksDB goes on writing to its files; whoever else writes one anew gives it a new name or removes it before."""
    keep = shutil.copyfile if (Path(source).parent / "CURRENT").exists() else os.link
    keep(source, target)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or event not in _CHANGES:
        return
    path = _CHANGES[event](arguments)
    for bus, folder in _watched:
        if path is not None and path.startswith(folder) and not path.startswith("/proc/"):
            bus.step(f"{event} {Path(path).name}")


def _opened(arguments: tuple[Any, ...]) -> str | None:
    path, _, flags = arguments
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) and flags & WRITING else None


def _named(arguments: tuple[Any, ...]) -> str:
    """The path; the descriptor of its folder is the last argument, where there is one."""
    path, folder = os.fsdecode(arguments[0]), arguments[-1]
    if os.path.isabs(path) or folder == -1:
        return os.path.abspath(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)


_CHANGES = {"open": _opened, "os.rename": _named, "os.mkdir": _named, "os.remove": _named, "os.rmdir": _named}
