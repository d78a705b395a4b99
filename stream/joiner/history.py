"""A user's last exposures as the packed bytes that records carry, so that publishing one copies and never converts."""

from __future__ import annotations

from schemas.packed import LONG_BYTES, pack_longs, unpack_longs
from schemas.records import History


class ExposureHistory:
    """Items, times and label bytes, oldest first. `bytes` are replaced, never changed, so slices may be kept."""

    __slots__ = ("items", "labels", "times_ms")

    def __init__(self, items: bytes = b"", times_ms: bytes = b"", labels: bytes = b"") -> None:
        self.items = items
        self.times_ms = times_ms
        self.labels = labels

    @classmethod
    def of(cls, record: History) -> ExposureHistory:
        """The history of a record."""
        return cls(record.history_items, record.history_times_ms, record.history_labels)

    def __len__(self) -> int:
        return len(self.labels)

    def append(self, item_id: int, time_ms: int, labels: int, keep: int) -> int:
        """Put an exposure last and forget all but the newest `keep`; its index."""
        surplus = max(0, len(self.labels) + 1 - keep)
        at = surplus * LONG_BYTES
        self.items = self.items[at:] + item_id.to_bytes(LONG_BYTES, "little", signed=True)
        self.times_ms = self.times_ms[at:] + time_ms.to_bytes(LONG_BYTES, "little", signed=True)
        self.labels = self.labels[surplus:] + bytes((labels,))
        return len(self.labels) - 1

    def insert(self, item_id: int, time_ms: int, labels: int, before_last: int, *, by_time: bool) -> int:
        """Put an exposure before the last `before_last` ones, `by_time` also before those that are later; its index."""
        index = len(self) - before_last
        if by_time:
            times = unpack_longs(self.times_ms)
            while index > 0 and times[index - 1] > time_ms:
                index -= 1
        at = index * LONG_BYTES
        self.items = self.items[:at] + item_id.to_bytes(LONG_BYTES, "little", signed=True) + self.items[at:]
        self.times_ms = self.times_ms[:at] + time_ms.to_bytes(LONG_BYTES, "little", signed=True) + self.times_ms[at:]
        self.labels = self.labels[:index] + bytes((labels,)) + self.labels[index:]
        return index

    def keep(self, newest: int) -> int:
        """Forget all but the newest; how many were forgotten."""
        surplus = max(0, len(self.labels) - newest)
        if surplus:
            self.items = self.items[-newest * LONG_BYTES :]
            self.times_ms = self.times_ms[-newest * LONG_BYTES :]
            self.labels = self.labels[-newest:]
        return surplus

    def part(self, start: int, stop: int) -> ExposureHistory:
        """Exposures `start` to `stop` (exclusive), counted from the oldest."""
        return ExposureHistory(
            self.items[start * LONG_BYTES : stop * LONG_BYTES],
            self.times_ms[start * LONG_BYTES : stop * LONG_BYTES],
            self.labels[start:stop],
        )

    def holds(self, item_id: int, time_ms: int) -> bool:
        """Whether this exposure is here."""
        item = pack_longs((item_id,))
        time = pack_longs((time_ms,))
        at = self.items.find(item)
        while at >= 0:
            if at % LONG_BYTES == 0 and self.times_ms[at : at + LONG_BYTES] == time:
                return True
            at = self.items.find(item, at + 1)
        return False

    def time_ms(self, index: int) -> int | None:
        """Event time of the exposure at `index`, counted from the oldest; None where there is none."""
        if not 0 <= index < len(self):
            return None
        return int.from_bytes(self.times_ms[index * LONG_BYTES : (index + 1) * LONG_BYTES], "little", signed=True)

    def add_labels(self, item_id: int, until_ms: int, labels: int, *, newest: int) -> bool | None:
        """Add label bits to the item's last exposure not later than `until_ms` among the `newest`.

        None where the item is not there; else whether that changed anything.
        """
        items = unpack_longs(self.items)
        times = unpack_longs(self.times_ms)
        for index in range(len(items) - 1, max(0, len(items) - newest) - 1, -1):
            if items[index] == item_id and times[index] <= until_ms:
                known = self.labels[index]
                self.labels = self.labels[:index] + bytes((known | labels,)) + self.labels[index + 1 :]
                return known | labels != known
        return None
