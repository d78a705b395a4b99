"""How old what people did is when the first recommendation comes from weights that have learned from it.

Two clocks, both from wall clocks that the log holds:

- from the ACTION: the last action on an exposure was produced. That includes the time for which its session waits for
  further feedback, which the joiner's settings decide and no system can shorten.
- from the SAMPLE: the last event that its session waited for was produced (see `evaluation.completion`). That is all
  that passes between complete feedback and its being served. Monolith and Ekko count from there, or later: a sample
  enters Monolith's training once its feedback has been joined, and Ekko's 2.4 s begin with an update of the weights.

`stages_ms` says where the time goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
NEVER_MS = np.iinfo(np.int64).max
STAGES = ("feedback", "joined_and_learned", "publish_wait", "published_to_served")
"""Action produced → sample complete → step done → version made → first answer by it."""


@dataclass(slots=True)
class Learned:
    """An exposure of a session: where its session lies and when the last action on it was produced."""

    partition: int
    offset: int
    produced_ms: int


class Served(NamedTuple):
    """What became of exposures [E]."""

    place: Longs  # of the first version that had learned it, in ascending order of versions; their count for none
    at_ms: Longs  # the first recommendation by that version or a later one; NEVER_MS for none

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """[E] whether it was served at all."""
        return self.at_ms < NEVER_MS


def served(
    learned: Sequence[Learned], versions: Mapping[int, Mapping[int, int]], answers: Sequence[tuple[int, int]]
) -> Served:
    """When each exposure was first served.

    `versions`: by version and partition the first offset of sessions not learned. `answers`: version and wall
    clock in ms of each recommendation.
    """
    numbers = np.array(sorted(versions), dtype=np.int64)
    place = np.full(len(learned), len(numbers), np.int64)
    if not len(numbers) or not answers or not learned:
        return Served(place, np.full(len(learned), NEVER_MS))
    partitions = np.array([each.partition for each in learned])
    offsets = np.array([each.offset for each in learned])
    for partition in np.unique(partitions).tolist():
        learned_to = np.maximum.accumulate([versions[number].get(partition, 0) for number in numbers.tolist()])
        mine = partitions == partition
        place[mine] = np.searchsorted(learned_to, offsets[mine], side="right")
    return Served(place, np.append(_first_served(numbers, answers), NEVER_MS)[place])


def waits_ms(
    learned: Sequence[Learned], versions: Mapping[int, Mapping[int, int]], answers: Sequence[tuple[int, int]]
) -> Longs:
    """For each exposure that ever was served the wait in ms from its last action on, in their order."""
    found = served(learned, versions, answers)
    produced_ms = np.array([each.produced_ms for each in learned], np.int64)
    return (found.at_ms - produced_ms)[found.known]


def stages_ms(
    learned: Sequence[Learned], found: Served, complete_ms: Longs, stepped_ms: Longs, created_ms: Sequence[int]
) -> dict[str, Longs]:
    """By stage how long exposures took, of those served whose every moment is known.

    `complete_ms` [E] and `stepped_ms` [E]: when the sample was complete and when the step that learned it was
    journalled, -1 where unknown; `created_ms` [V]: when each version was made.
    """
    kept = found.known & (complete_ms >= 0) & (stepped_ms >= 0)
    produced_ms = np.array([each.produced_ms for each in learned], np.int64)
    made_ms = np.append(np.array(created_ms, np.int64), -1)[found.place]
    moments = [each[kept] for each in (produced_ms, complete_ms, stepped_ms, made_ms, found.at_ms)]
    return {name: after - before for name, (before, after) in zip(STAGES, pairwise(moments), strict=True)}


def _first_served(numbers: Longs, answers: Sequence[tuple[int, int]]) -> Longs:
    """By place in `numbers`: when the first recommendation by that version or a later one was made."""
    first_ms = np.full(len(numbers), NEVER_MS)
    by, at_ms = np.array(answers, dtype=np.int64).T
    known = by >= numbers[0]
    np.minimum.at(first_ms, np.searchsorted(numbers, by[known], side="right") - 1, at_ms[known])
    return np.minimum.accumulate(first_ms[::-1])[::-1]
