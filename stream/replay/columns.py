"""Columns of a parquet or CSV file as checked numpy arrays; what is wrong is named by file, column and row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stream.replay.log import Bytes, Floats, LogError, Longs, MissingFileError

UNITS_MS = {"ms": 1, "s": 1000}
ISO = "iso"


class Columns:
    """One file. Rows in messages count from 1, without a CSV file's header."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises LogError where it is missing, empty or neither parquet nor CSV."""
        self.path = path
        if not path.is_file():
            raise MissingFileError(path, "Mend `path` in the mapping; it is relative to the mapping's folder.")
        try:
            self._table = self._read(path)
            self.names: list[str] = self._table.column_names
        except (pa.ArrowException, OSError, ValueError) as error:  # also names that are not UTF-8
            raise LogError(f"{path} cannot be read: {error}.", "Save it as parquet or CSV with a header.") from error
        if repeated := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise LogError(f"{path} has more than one column {repeated[0]}.", "Give each column a name of its own.")
        if not len(self):
            raise LogError(f"{path} has no rows.", "Name another file in the mapping.")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def integers(self, column: str, *, least: int | None = None) -> Longs:
        """A column of whole numbers, none missing, none below `least`."""
        found = self._found(column)
        if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type)):
            raise self._wrong(
                column, f"holds {found.type}, not whole numbers", "Number users and items with 64-bit integers first."
            )
        self._no_nulls(column, found)
        values = found.to_numpy()
        if pa.types.is_floating(found.type):
            self._refuse_rows(column, values, ~np.isfinite(values), "is no number")
            self._refuse_rows(column, values, values != np.floor(values), "is no whole number")
        longs = self._longs(column, values)
        if least is not None:
            self._refuse_rows(column, longs, longs < least, f"is below {least}")
        return longs

    def lengths_ms(self, column: str | None, unit: str) -> Longs:
        """A column of lengths of time, 0 where it is not mapped or has no value."""
        if column is None:
            return np.zeros(len(self), dtype=np.int64)
        factor = UNITS_MS.get(unit)
        if factor is None:
            raise self._unit(column, unit, UNITS_MS)
        found = self._found(column)
        missing = pc.is_null(found).to_numpy(zero_copy_only=False)
        values = np.where(missing, 0.0, self._numbers(column, found))
        self._refuse_rows(column, values, ~np.isfinite(values), "is no number")
        self._refuse_rows(column, values, values < 0, "is negative")
        return self._longs(column, np.round(values * factor))

    def times_ms(self, column: str, unit: str) -> Longs:
        """A column of moments as ms since the epoch: numbers in `unit`, timestamps, or ISO text (UTC without zone)."""
        found = self._found(column)
        self._no_nulls(column, found)
        if pa.types.is_timestamp(found.type) or pa.types.is_date(found.type):
            return self._stamped(column, found)
        if unit == ISO:
            return self._stamped(column, self._from_iso(column, found))
        factor = UNITS_MS.get(unit)
        if factor is None:
            raise self._unit(column, unit, (*UNITS_MS, ISO))
        values = self._numbers(column, found)
        self._refuse_rows(column, values, ~(values >= 0), "is no time since 1970")
        return self._longs(column, np.round(values * factor))

    def happened(self, column: str) -> npt.NDArray[np.bool_]:
        """A column that says whether something happened: anything but 0, false, empty or missing is a yes."""
        found = self._found(column)
        if pa.types.is_string(found.type) or pa.types.is_large_string(found.type):
            said = pc.fill_null(pc.utf8_lower(pc.utf8_trim_whitespace(found)), "")
            no = pc.is_in(said, value_set=pa.array(["", "0", "false", "no"], type=said.type))
            return np.asarray(pc.invert(no).to_numpy(zero_copy_only=False), dtype=bool)
        missing = pc.is_null(found).to_numpy(zero_copy_only=False)
        return np.asarray(np.where(missing, 0.0, self._numbers(column, found)) != 0.0)

    def texts(self, column: str) -> list[str]:
        """A column as text, empty where missing."""
        return ["" if value is None else str(value) for value in self._found(column).to_pylist()]

    def vectors(self, column: str) -> Floats:
        """[N, d] a column of lists of numbers of one length."""
        found = self._found(column).combine_chunks()
        if not (
            pa.types.is_list(found.type)
            or pa.types.is_large_list(found.type)
            or pa.types.is_fixed_size_list(found.type)
        ):
            raise self._wrong(column, f"holds {found.type}, not lists of numbers", "Or name a prefix of columns.")
        self._no_nulls(column, found)
        widths = np.asarray(pc.list_value_length(found).to_numpy(zero_copy_only=False))
        self._refuse_rows(column, widths, widths != widths[0], f"has another width than row 1 ({widths[0]})")
        if not (pa.types.is_integer(found.type.value_type) or pa.types.is_floating(found.type.value_type)):
            raise self._wrong(column, f"holds {found.type}, not lists of numbers", "Or name a prefix of columns.")
        values = found.flatten().to_numpy(zero_copy_only=False)
        return self._finite(column, _halved(values).reshape(len(self), -1))

    def numbered(self, prefix: str) -> Floats:
        """[N, d] the columns `prefix`0, `prefix`1, … as vectors."""
        names: list[str] = []
        while f"{prefix}{len(names)}" in self.names:
            names.append(f"{prefix}{len(names)}")
        if not names:
            raise self._missing(f"{prefix}0")
        columns = [_halved(self._numbers(name, self._found(name))) for name in names]
        return self._finite(f"{prefix}0…", np.stack(columns, axis=1))

    def refuse(self, rows: npt.NDArray[np.bool_], column: str, values: npt.NDArray[Any], why: str, remedy: str) -> None:
        """Raise LogError for the first of `rows`, with its value and why it is wrong."""
        bad = np.flatnonzero(rows)
        if len(bad):
            raise LogError(
                f"{self.path} row {bad[0] + 1}: {column} {values[bad[0]]} {why} ({len(bad)} such rows).", remedy
            )

    @staticmethod
    def _read(path: Path) -> pa.Table:
        if path.suffix in {".parquet", ".pq"}:
            return pq.read_table(path)
        return pa.csv.read_csv(path)

    def _found(self, column: str) -> Any:
        if column not in self.names:
            raise self._missing(column)
        return self._table[column]

    def _missing(self, column: str) -> LogError:
        names = ", ".join(self.names)
        return self._wrong(column, f"does not exist; there are {names}", "Mend the name in the mapping.")

    def _unit(self, column: str, unit: str, known: Any) -> LogError:
        return self._wrong(column, f"has the unit {unit}", f"Choose among {', '.join(known)}.")

    def _wrong(self, column: str, what: str, remedy: str) -> LogError:
        return LogError(f"{self.path}: column {column} {what}.", remedy)

    def _no_nulls(self, column: str, found: Any) -> None:
        if found.null_count:
            missing = pc.is_null(found).to_numpy(zero_copy_only=False)
            self.refuse(missing, column, np.full(len(self), "(nothing)"), "is missing", "Fill it or leave the row out.")

    def _refuse_rows(self, column: str, values: npt.NDArray[Any], bad: Any, why: str) -> None:
        self.refuse(bad, column, values, why, "Mend the value or leave the row out.")

    def _numbers(self, column: str, found: Any) -> npt.NDArray[np.float64]:
        try:
            return np.asarray(found.cast(pa.float64()).to_numpy(zero_copy_only=False))
        except pa.ArrowException as error:
            raise self._wrong(column, f"holds {found.type}, not numbers", "Map a column of numbers.") from error

    def _from_iso(self, column: str, found: Any) -> Any:
        try:
            return (
                pc.cast(found, pa.timestamp("ms", tz="UTC")) if _has_zone(found) else pc.cast(found, pa.timestamp("ms"))
            )
        except pa.ArrowException as error:
            raise self._wrong(
                column, f"is not all ISO times: {error}", "Write times like 2022-04-25T18:00:00."
            ) from error

    def _stamped(self, column: str, found: Any) -> Longs:
        times_ms = np.asarray(found.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy())
        self._refuse_rows(column, times_ms, times_ms < 0, "(in ms) is no time since 1970")
        return times_ms

    def _longs(self, column: str, values: npt.NDArray[Any]) -> Longs:
        """Whole numbers as int64; refuses what does not fit."""
        if values.dtype != np.int64:
            self._refuse_rows(column, values, (values >= 2**63) | (values < -(2**63)), "is beyond 64 bits")
        return np.asarray(values, dtype=np.int64)

    def _finite(self, column: str, vectors_nd: Floats) -> Floats:
        self._refuse_rows(column, vectors_nd[:, 0], ~np.isfinite(vectors_nd).all(axis=1), "… holds no finite vector")
        return vectors_nd


def _halved(values: npt.NDArray[Any]) -> Floats:
    """As float32; what does not fit becomes infinite, which `_finite` refuses."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _has_zone(found: Any) -> bool:
    first = str(found[0].as_py())
    return first.endswith("Z") or "+" in first[10:] or "-" in first[10:]


def flags(columns: Columns, mapped: dict[str, int]) -> Bytes:
    """[N] label bytes: the sum of the bits of the columns that say yes."""
    labels = np.zeros(len(columns), dtype=np.uint8)
    for column, bit in mapped.items():
        labels |= np.where(columns.happened(column), np.uint8(bit), np.uint8(0))
    return labels
