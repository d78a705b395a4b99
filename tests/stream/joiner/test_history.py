"""Histories as packed bytes, held equal to plain lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.packed import unpack_longs
from stream.joiner.history import ExposureHistory

ENTRY = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 63))


def plain(history: ExposureHistory) -> list[tuple[int, int, int]]:
    return list(zip(unpack_longs(history.items), unpack_longs(history.times_ms), history.labels, strict=True))


def of(entries: list[tuple[int, int, int]]) -> ExposureHistory:
    history = ExposureHistory()
    for item, time_ms, labels in entries:
        history.append(item, time_ms, labels, keep=1000)
    return history


@given(entries=st.lists(ENTRY), new=ENTRY, keep=st.integers(1, 6))
def test_append_keeps_the_newest(entries: list[tuple[int, int, int]], new: tuple[int, int, int], keep: int) -> None:
    history = of(entries)

    index = history.append(*new, keep)

    wanted = [*entries, new][-keep:]
    assert plain(history) == wanted
    assert index == len(wanted) - 1


@given(entries=st.lists(ENTRY), new=ENTRY, before=st.integers(0, 3), by_time=st.booleans())
def test_insert_finds_its_place(
    entries: list[tuple[int, int, int]], new: tuple[int, int, int], before: int, *, by_time: bool
) -> None:
    before = min(before, len(entries))
    history = of(entries)

    index = history.insert(*new, before, by_time=by_time)

    assert plain(history) == [*entries[:index], new, *entries[index:]]
    assert index <= len(entries) - before
    if by_time:
        assert all(time_ms > new[1] for _, time_ms, _ in entries[index : len(entries) - before])
        assert index == 0 or entries[index - 1][1] <= new[1]
    else:
        assert index == len(entries) - before


@given(entries=st.lists(ENTRY), item=st.integers(0, 5), until=st.integers(0, 9), newest=st.integers(1, 4))
def test_labels_are_added_to_the_last_exposure_in_time(
    entries: list[tuple[int, int, int]], item: int, until: int, newest: int
) -> None:
    history = of(entries)

    changed = history.add_labels(item, until, 8, newest=newest)

    held = [n for n in range(len(entries))[-newest:] if entries[n][0] == item and entries[n][1] <= until]
    assert changed == ((entries[held[-1]][2] & 8 == 0) if held else None)
    wanted = [(i, t, labels | 8 if held and n == held[-1] else labels) for n, (i, t, labels) in enumerate(entries)]
    assert plain(history) == wanted


@given(entries=st.lists(ENTRY), item=st.integers(0, 5), time_ms=st.integers(0, 9))
def test_holds_looks_for_item_and_time(entries: list[tuple[int, int, int]], item: int, time_ms: int) -> None:
    assert of(entries).holds(item, time_ms) == any(entry[:2] == (item, time_ms) for entry in entries)


def test_holds_is_not_misled_by_bytes_across_two_items() -> None:
    history = of([(1 << 8, 5, 0), (1 << 16, 6, 0)])

    assert not history.holds(1, 5)


@given(entries=st.lists(ENTRY), newest=st.integers(1, 5))
def test_keep_part_and_time(entries: list[tuple[int, int, int]], newest: int) -> None:
    history = of(entries)
    part = history.part(1, 3)

    dropped = history.keep(newest)

    assert plain(part) == entries[1:3]
    assert dropped == max(0, len(entries) - newest)
    assert plain(history) == entries[-newest:]
    assert history.time_ms(0) == (entries[-newest:][0][1] if entries else None)
    assert history.time_ms(-1) is None
    assert history.time_ms(len(history)) is None
