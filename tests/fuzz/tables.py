"""Anybody's own log: parquet and CSV, each column as each kind of values."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onerec.errors import OneRecError
from stream.replay.columns import ISO, Columns

READS: tuple[Callable[[Columns, str], Any], ...] = (
    lambda columns, name: columns.integers(name, least=0),
    lambda columns, name: columns.lengths_ms(name, "s"),
    lambda columns, name: columns.times_ms(name, "ms"),
    lambda columns, name: columns.times_ms(name, ISO),
    lambda columns, name: columns.happened(name),
    lambda columns, name: columns.texts(name),
    lambda columns, name: columns.vectors(name),
    lambda columns, name: columns.numbered(name[:-1]),
)
CSV = (
    b"a,b,c0,d\n1,2022-04-25T18:00:00,0.5,true\n2,2022-04-26,1e300,\n",
    b"a,b\n18446744073709551615,1969-01-01\n",
    b"a\n99999999999999999999999\n",
    b"a\n-1\nnan\ninf\n",
    b'a\n"x\n',
    b"a,a\n1,2\n",
    b"a\n12:30\n",
    b"a\n9999-12-31T23:59:59Z\n",
)


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


SEEDS = [b"\x00" + csv for csv in CSV]
SEEDS += [
    b"\x01" + parquet(a=[1, 2], v=[[0.5, 1.0], [2.0, 3.0]]),
    b"\x01" + parquet(a=[None, 1], v=[["x"], ["y"]]),
    b"\x01" + parquet(a=[{"b": 1}], v=[[[1]]]),
    b"\x01" + parquet(a=pa.array([2**64 - 1], pa.uint64()), v=pa.array([1.5e300])),
]


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def target(data: bytes) -> None:
    """The first byte chooses CSV or parquet; each reading is refused with a sentence, or done."""
    path = folder() / ("log.parquet" if data[:1] == b"\x01" else "log.csv")
    path.write_bytes(data[1:])
    with contextlib.suppress(OneRecError):
        columns = Columns(path)
        for name in columns.names[:8]:
            for read in READS:
                with contextlib.suppress(OneRecError):
                    assert len(read(columns, name)) == len(columns)
