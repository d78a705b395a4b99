"""Real processes that leak or do not, and folders that grow or do not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.soak import trend, verdict
from chaos.soak.observe import FolderSample, Observer, Samples
from chaos.soak.verdict import BOUNDED, FLAT, GROWS, REPORTED, judge
from onerec.metrics import Samples as Scraped

PROGRAM = """
import sys, time
kept = []
def use():
    data = bytearray(b"x" * 1_000_000)
    if sys.argv[1] == "leaks":
        kept.append((data, open("/dev/null")))
use()
print("running", flush=True)
while True:
    use()
    time.sleep(0.05)
"""
"""A megabyte and a file twenty times a second, or the same megabyte again and again."""
LOOKS = 100
SCRAPED = Scraped(
    {
        "onerec_state_cache_bytes": {(("job", "leaks"),): 1e6, (("job", "keeps"),): 2e6},
        "onerec_heap_used_bytes": {(("job", "keeps"),): 5e6},
        "some": {(("a", str(number)), ("job", "leaks")): 1.0 for number in range(6)},
    }
)


def start(name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.stdout.close()
    return process


def test_a_process_that_leaks_is_found_and_one_that_does_not_is_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "WARM_UP_S", 0.0)
    monkeypatch.setattr(verdict, "MAX_SLOPE_MB_PER_HOUR", 3600.0)  # a megabyte a second; the leak is far faster
    monkeypatch.setattr(trend, "BLOCK_S", 0.25)
    started = {name: start(name) for name in ("leaks", "keeps")}
    (tmp_path / "state").mkdir()
    observer = Observer(tmp_path / "samples.jsonl", {"state": tmp_path / "state"})
    try:
        ids = {process.pid: name for name, process in started.items()}
        for _ in range(LOOKS):
            observer.look(ids, SCRAPED)
            time.sleep(0.05)
        restarted = start("keeps")
        observer.look({restarted.pid: "keeps", started["leaks"].pid: "leaks"}, Scraped())
        restarted.kill()
        restarted.wait()
        observer.look({restarted.pid: "keeps"}, Scraped())  # it is gone: no sample
    finally:
        observer.close()
        for process in started.values():
            process.kill()
            process.wait()
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"service": "torn')
    samples = Samples.read(tmp_path / "samples.jsonl")
    found = judge(samples)
    leaks, keeps = found.processes
    assert (leaks.service, leaks.verdict) == ("leaks", GROWS)
    assert leaks.memory is not None
    assert leaks.memory.low > 3600.0
    assert leaks.more["descriptors"] > 16
    assert (keeps.service, keeps.lives) == ("keeps", 2)
    assert keeps.verdict == FLAT
    assert keeps.used is not None
    assert (keeps.used.slope, keeps.used.level) == (0.0, 3.0)
    assert leaks.used is None, "it told nothing of its heap"
    assert found.broken == ["leaks"]
    assert {(s.series, s.cached_bytes) for s in samples.processes if s.service == "leaks"} == {(7, 1_000_000), (0, 0)}

    assert {s.cached_bytes for s in samples.processes if s.service == "keeps"} == {2_000_000, 0}


def folder(name: str, sizes_mb: list[float]) -> tuple[FolderSample, ...]:
    return tuple(FolderSample(name, 5.0 * at, int(size * 1e6), at) for at, size in enumerate(sizes_mb))


def test_folders_may_go_up_and_down_but_not_on_and_on() -> None:
    found = judge(
        Samples(
            (),
            (
                *folder("saw", [10, 20, 90, 10, 60, 100, 20, 50, 110]),
                *folder("cleared", [10, 20, 120, 10, 60, 90, 20, 50, 120]),
                *folder("small", [0, 1, 2, 3, 4, 5, 6, 12, 18]),
                *folder("leak", [10, 20, 40, 60, 80, 100, 120, 140, 160]),
                *folder("broker log", [10, 20, 40, 60, 80, 100, 120, 140, 160]),
            ),
        )
    )
    assert [one.verdict for one in found.folders] == [BOUNDED, BOUNDED, BOUNDED, GROWS, REPORTED]
    assert found.broken == ["leak"]
    assert found.as_json()["folders"][3]["thirds_mb"] == (40, 100, 160)
