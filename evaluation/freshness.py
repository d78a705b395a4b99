"""How old what people did is when the first recommendation comes from weights that have learned from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]


@dataclass(slots=True)
class Learned:
    """An exposure of a session: where its session lies and when the last action on it was produced."""

    partition: int
    offset: int
    produced_ms: int


def waits_ms(
    learned: Sequence[Learned], versions: Mapping[int, Mapping[int, int]], answers: Sequence[tuple[int, int]]
) -> Longs:
    """For each exposure the wait in ms until it was served, in the order of the exposures that ever were.

    `versions`: by version and partition the first offset of sessions not learned. `answers`: version and wall
    clock in ms of each recommendation. Served means: the first recommendation by the first version that had
    learned the session, or by a later one.
    """
    numbers = np.array(sorted(versions), dtype=np.int64)
    if not len(numbers) or not answers or not learned:
        return np.zeros(0, dtype=np.int64)
    served_ms = _first_served(numbers, answers)
    partitions = {each.partition for each in learned}
    learned_to = {
        partition: np.maximum.accumulate([versions[number].get(partition, 0) for number in numbers.tolist()])
        for partition in partitions
    }
    waits = []
    for each in learned:
        place = int(np.searchsorted(learned_to[each.partition], each.offset, side="right"))
        if place < len(numbers) and served_ms[place] < np.iinfo(np.int64).max:
            waits.append(served_ms[place] - each.produced_ms)
    return np.array(waits, dtype=np.int64)


def _first_served(numbers: Longs, answers: Sequence[tuple[int, int]]) -> Longs:
    """By place in `numbers`: when the first recommendation by that version or a later one was made."""
    first_ms = np.full(len(numbers), np.iinfo(np.int64).max)
    by, at_ms = np.array(answers, dtype=np.int64).T
    known = by >= numbers[0]
    np.minimum.at(first_ms, np.searchsorted(numbers, by[known], side="right") - 1, at_ms[known])
    return np.minimum.accumulate(first_ms[::-1])[::-1]
