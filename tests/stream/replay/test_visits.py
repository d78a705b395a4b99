"""Visits are cut at gaps, and request ids are a function of user and start."""

from __future__ import annotations

import numpy as np

from stream.replay.log import Exposures
from stream.replay.visits import VISIT_GAP_MS, request_ids, visits_of


def test_cut_as_a_loop_would(exposures: Exposures) -> None:
    some = exposures.window(None, 30_000)
    found = visits_of(some)
    last: dict[int, tuple[int, int]] = {}
    position: dict[int, int] = {}
    shown: dict[int, set[int]] = {}
    starts: list[tuple[int, int]] = []
    for row, (user, time) in enumerate(zip(some.user_ids.tolist(), some.times_ms.tolist(), strict=True)):
        item = int(some.item_ids[row])
        if user not in last or time - last[user][0] > VISIT_GAP_MS or item in shown[user]:
            starts.append((user, time))
            last[user] = time, len(starts) - 1
            position[user] = -1
            shown[user] = set()
        last[user] = time, last[user][1]
        position[user] += 1
        shown[user].add(item)
        visit = found.of_exposure[row]
        assert (found.user_ids[visit], found.start_ms[visit]) == starts[last[user][1]]
        assert found.positions[row] == position[user]
    assert len(found.request_ids) == len(starts)
    assert (np.diff(found.start_ms) >= 0).all()


def test_ids_are_unique_and_fit_63_bits(exposures: Exposures) -> None:
    found = visits_of(exposures)
    assert len(found.request_ids) == 141_870
    assert len(np.unique(found.request_ids)) == len(found.request_ids)
    assert (found.request_ids >= 0).all()


def test_ids_do_not_depend_on_what_else_is_in_the_log(exposures: Exposures) -> None:
    assert request_ids(np.array([712]), np.array([1_650_812_741_436])).tolist() == [visits_of(exposures).request_ids[0]]
    assert request_ids(np.array([1, 2]), np.array([2, 1])).tolist()[0] != request_ids(np.array([2]), np.array([1]))[0]
    fewer = visits_of(exposures.window(None, 1000))
    assert set(fewer.request_ids.tolist()) <= set(visits_of(exposures).request_ids.tolist())
