"""The compiled join against Python's: the same records, byte for byte, whatever comes and whenever it dies."""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.settings import JoinerSettings, KafkaSettings
from onerec.settings.stream import HighQualityRule, LabelSettings
from schemas.reasons import Reason
from stream.joiner.choice import join_of
from stream.joiner.join import BEGINNING_MS
from stream.joiner.native import binding, check
from stream.joiner.native.binding import Functions
from stream.joiner.native.join import NativeJoin
from stream.joiner.native.story import story
from stream.joiner.plain import PlainJoin
from stream.joiner.state import pack_user
from stream.joiner.user import User
from stream.joiner.wiring import names

STEPS = 60
WIRING = names(KafkaSettings(), "cluster", ())
OTHER_RULES = st.builds(
    JoinerSettings,
    session_items=st.integers(1, 6),
    session_gap_ms=st.integers(1, 90),
    feedback_window_ms=st.integers(1, 40),
    history_items=st.integers(1, 9),
    labels=st.builds(
        LabelSettings,
        long_view_ms=st.sampled_from([0, 900, 18_000]),
        short_video_share=st.sampled_from([0.0, 0.33, 1.0]),
        clock_ms=st.sampled_from([1, 1_000]),
    ),
    high_quality=st.builds(
        HighQualityRule,
        min_watched=st.integers(0, 3),
        min_total_watch_ms=st.sampled_from([0, 1_000, 60_000]),
        need_interaction=st.booleans(),
        combine=st.sampled_from(["any", "all"]),
    ),
)


@pytest.fixture(scope="module")
def functions() -> Functions:
    try:
        binding.build()
    except DependencyMissingError as error:
        pytest.skip(str(error))
    binding.load.cache_clear()
    found = binding.load()
    assert found is not None
    return found


@hypothesis_settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rules=st.just(check.RULES) | OTHER_RULES)
def test_both_give_out_the_same_on_any_stream(functions: Functions, seed: int, rules: JoinerSettings) -> None:
    assert check.disagreement(functions, seed=seed, rules=rules, steps=STEPS) is None


def test_the_streams_have_in_them_all_that_may_befall_a_join() -> None:
    seen: Counter[str] = Counter()
    for seed in range(5):
        life = check.Life(PlainJoin, check.RULES, WIRING)
        for step in story(random.Random(seed), WIRING, STEPS):
            told: Any = step(life)
            if isinstance(told, dict):
                events, late, duplicates, closed = told["counts"]
                seen.update(closed, events=events, late_impressions=late, duplicates=duplicates)
                seen.update(str(refusal.reason) for refusal in told["refusals"])
                seen["tombstones"] += sum(value is None for _, value, _ in told["changelog"])
                seen["histories"] += len(told["histories"])
                seen["waiting"] += told["open"][1]

    expected = {"full", "gap", "idle", "events", "late_impressions", "duplicates", "tombstones", "histories", "waiting"}
    expected |= {Reason.LATE, Reason.ORPHAN}
    assert all(seen[name] for name in expected), seen


def test_what_differs_is_not_used(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = Functions(binding.LIBRARY.path())
    wrong.close_idle = lambda *_: 1  # nothing is closed
    monkeypatch.setattr(binding, "load", lambda: wrong)
    check.checked.cache_clear()
    with caplog.at_level(logging.ERROR):
        made = join_of(JoinerSettings(), WIRING, lambda _: None, BEGINNING_MS)
    check.checked.cache_clear()

    assert isinstance(made, PlainJoin)
    assert "the compiled join differs from Python's in step" in caplog.text


@pytest.mark.parametrize(
    ("rules", "chosen"),
    [
        ({}, NativeJoin),
        ({"compiled": False}, PlainJoin),
        ({"feedback_window_ms": 2**62}, PlainJoin),
        ({"max_watch_ms": 2**58}, PlainJoin),
    ],
    ids=["as it comes", "switched off", "a window beyond 64 bits", "watch times whose sum is"],
)
def test_it_is_chosen_where_it_can_keep_the_rules(
    functions: Functions, rules: dict[str, Any], chosen: type[object]
) -> None:
    check.checked.cache_clear()
    assert type(join_of(JoinerSettings(**rules), WIRING, lambda _: None, BEGINNING_MS)) is chosen


def test_where_it_is_not_built_python_joins_and_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    binding.load.cache_clear()
    check.checked.cache_clear()
    with caplog.at_level(logging.INFO):
        made = join_of(JoinerSettings(), WIRING, lambda _: None, BEGINNING_MS)
    binding.load.cache_clear()
    check.checked.cache_clear()

    assert isinstance(made, PlainJoin)
    assert "python -m stream compile" in caplog.text


@pytest.mark.parametrize("size", [1, 10, 17, 50, -1])
def test_a_state_that_is_cut_short_is_refused_with_the_remedy(functions: Functions, size: int) -> None:
    packed = next(iter(_states().values()))
    join = NativeJoin(functions, check.RULES, WIRING, lambda _: None, BEGINNING_MS)

    with pytest.raises(CheckFailedError, match=r"no state of this joiner.*See who else writes"):
        join.restore(1, packed[:size])


def test_a_state_of_another_version_is_refused_with_the_remedy(functions: Functions) -> None:
    join = NativeJoin(functions, check.RULES, WIRING, lambda _: None, BEGINNING_MS)

    with pytest.raises(CheckFailedError, match="version 99"):
        join.restore(1, b"\x63" + pack_user(User.of(1, None), 2)[1:])


def _states() -> dict[bytes, bytes]:
    """Of users who have something open and actions that wait."""
    life = check.Life(PlainJoin, check.RULES, WIRING)
    for step in story(random.Random(1), WIRING, 8):
        step(life)
        if life.join.open.actions and life.join.open.impressions:
            break
        life.commit()
    waiting = {key: value for key, value in life.local.items() if key.startswith(b"u") and value[5:9] != bytes(4)}
    assert waiting
    return waiting
