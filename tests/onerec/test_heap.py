"""A process whose heap was much larger once does not stay so."""

from __future__ import annotations

import subprocess
import sys

import pytest

GROWS_AND_SHRINKS = """
import sys, threading, time
import psutil
from onerec.heap import give_back_freed_memory

blocks = [bytes(2000) for _ in range(100_000)]
keep = blocks[::100]  # what is left lies between what is freed
full = psutil.Process().memory_info().rss
del blocks
if sys.argv[1] == "given back":
    give_back_freed_memory(interval_s=0.01)
deadline = time.monotonic() + float(sys.argv[2])
while psutil.Process().memory_info().rss > full / 2 and time.monotonic() < deadline:
    threading.Event().wait(0.01)
print(psutil.Process().memory_info().rss / full)
"""


USES = """
from prometheus_client import REGISTRY
from onerec.heap import give_back_freed_memory

give_back_freed_memory()
before = REGISTRY.get_sample_value("onerec_heap_used_bytes")
blocks = [bytes(2000) for _ in range(100_000)]
full = REGISTRY.get_sample_value("onerec_heap_used_bytes") - before
keep = blocks[::100]
del blocks
print(full, REGISTRY.get_sample_value("onerec_heap_used_bytes") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallinfo2 is glibc's")
def test_what_was_freed_is_not_told_as_used() -> None:
    command = [sys.executable, "-c", USES]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()
    full, left = map(float, told)
    assert 200e6 < full < 220e6
    assert 0 < left < 4e6


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_freed_memory_goes_back_to_the_system() -> None:
    def left(how: str, patience_s: float) -> float:
        command = [sys.executable, "-c", GROWS_AND_SHRINKS, how, str(patience_s)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)

    assert left("kept", 0.2) > 0.5
    assert left("given back", 60.0) < 0.5


KEEPS = """
import resource, sys
from onerec.heap import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
bytearray(256 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    bytearray(256 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_large_blocks_that_are_made_again_need_no_new_pages_where_memory_is_kept() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", KEEPS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)

    assert faults("kept") < faults("given back") / 10
