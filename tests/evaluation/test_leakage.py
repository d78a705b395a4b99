"""An answer leaks where its version had learned the session that it was to predict, and only there."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from evaluation.leakage import LeakageCheck
from schemas.records import ModelVersion, TopicOffset, VersionKind, VersionStatus


def version(number: int, learned: dict[int, int]) -> ModelVersion:
    return ModelVersion(
        model="onerec",
        version=number,
        step=number,
        kind=VersionKind.FULL,
        uri="",
        sha256="",
        size_bytes=0,
        offsets=(
            TopicOffset(topic="preferences", partition=0, next_offset=1_000),
            *(TopicOffset(topic="sessions", partition=at, next_offset=to) for at, to in learned.items()),
        ),
        metrics={},
        status=VersionStatus.PUBLISHED,
        created_ms=0,
        learned_produced_ms=b"",
        preset="tiny",
        codebook_version=1,
    )


def found(*calls: Callable[[LeakageCheck], None]) -> set[tuple[int, int]]:
    """Checked and leaked, over all orders of the calls."""
    results = set()
    for order in itertools.permutations(calls):
        check = LeakageCheck()
        for call in order:
            call(check)
        results.add((check.checked, check.leaked))
    return results


def test_learned_up_to_but_not_the_session() -> None:
    calls = (
        lambda check: check.session(1, 40, [7, 8]),
        lambda check: check.version(version(3, {0: 900, 1: 40})),
        lambda check: check.answered(8, 3),
    )
    assert found(*calls) == {(1, 0)}


def test_learned_the_session() -> None:
    calls = (
        lambda check: check.session(1, 40, [7, 8]),
        lambda check: check.version(version(3, {1: 41})),
        lambda check: check.answered(8, 3),
    )
    assert found(*calls) == {(1, 1)}


def test_the_first_session_of_a_visit_decides() -> None:
    check = LeakageCheck()
    check.version(version(3, {0: 11}))
    check.session(0, 10, [5])
    check.session(0, 20, [5])
    check.answered(5, 3)
    assert (check.checked, check.leaked) == (1, 1)


def test_what_is_not_known_is_unchecked() -> None:
    check = LeakageCheck()
    check.answered(5, 3)
    check.answered(6, 4)
    check.session(0, 10, [5])
    assert (check.checked, check.unchecked) == (0, 2)
    check.version(version(3, {}))
    assert (check.checked, check.leaked, check.unchecked) == (1, 0, 1)
