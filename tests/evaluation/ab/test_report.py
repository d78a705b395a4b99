"""Intervals and uplifts of invented visits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.ab.course import course, draw
from evaluation.ab.protocol import ARMS, CASCADE, FROZEN, IPA, ONEREC, QUICK, arm_of, described
from evaluation.ab.report import summarised, table, write_paper
from evaluation.ab.system import _configuration
from onerec.demo.loop import Options
from onerec.settings import TrainerSettings, load_settings

SPAN = np.array([0, 1000])
SYSTEM = {
    "seed": 1,
    "minutes": 4.2,
    "pairs": {"made": 31.0, "learned": 30.0},
    "dead_letters": {"joiner: late": 9},
    "drive": {"records": {"requests": 1_900}, "unanswered": 2, "latency_ms_p50": 218.0},
}
MEANS = {CASCADE: 20_000, FROZEN: 30_000, ONEREC: 40_000, IPA: 40_000}


def visits(seed: int, users: int = 300, each: int = 4) -> dict[str, Any]:
    """Of users who differ a lot; those before the burn-in are absurd."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(ARMS) * users), each)
    arm = user % len(ARMS)
    habit = random.exponential(1.0, len(ARMS) * users)[user]
    watch_ms = np.array([MEANS[name] for name in ARMS])[arm] * habit * random.exponential(1.0, len(user))
    early = np.arange(len(user)) % each == 0
    return {
        "user": user,
        "arm": arm,
        "begin_ms": np.where(early, 249, random.integers(250, 1000, len(user))),
        "watch_ms": np.where(early, 10**9, watch_ms).astype(np.int64),
        "expected_watch_ms": np.array([MEANS[name] for name in ARMS])[arm] * habit,
        "items": np.ones(len(user), np.int64),
        "likes": np.zeros(len(user), np.int64),
        "follows": np.zeros(len(user), np.int64),
        "span": SPAN,
        "seed": seed,
    }


def test_the_interval_knows_that_visits_of_a_user_are_alike() -> None:
    found = summarised([visits(1), visits(2)])
    for arm in ARMS:
        own = found["arms"][arm]
        assert own["sessions"] == 2 * 300 * 3
        assert own["users"] == 2 * 300
        mean, low, high = own["watch_time_per_session_s"]
        assert low < MEANS[arm] / 1000 < high
        assert low < mean < high < 60
        # Exponential habits times exponential watch: users alone give a relative error of 1 / sqrt(600).
        assert (high - low) / mean > 2 * 1.96 / np.sqrt(600)
    better = found["uplift"][f"{ONEREC} over {CASCADE}"]["watch_time_per_session_s"]
    same = found["uplift"][f"{IPA} over {ONEREC}"]["watch_time_per_session_s"]
    assert better[0] == pytest.approx(1.0, abs=0.4)
    assert better[1] > 0
    assert same[1] < 0 < same[2]


def test_how_narrow_an_arm_is_is_told_where_first_items_are_known() -> None:
    """Ten videos in turn in one arm, everywhere else one; before the burn-in anything goes."""
    part = visits(1)
    assert "share_of_five_most_shown" not in summarised([part])["arms"][ONEREC]
    own = part["arm"] == ARMS.index(ONEREC)
    part["first_item"] = np.where(own, part["user"] // len(ARMS) % 10, 7)
    part["first_item"][part["begin_ms"] < 250] = 3
    found = summarised([part, part])
    assert found["arms"][ONEREC]["share_of_five_most_shown"] == pytest.approx(0.5)
    assert found["arms"][CASCADE]["share_of_five_most_shown"] == 1.0
    assert "| five most shown |" in table(found)
    assert "| 50% |" in table(found)


def test_the_course_of_the_run_is_told_by_quarter(tmp_path: Path) -> None:
    """Users of one arm watch longer in every quarter; its first items become fewer."""
    part = visits(1)
    own, quarter = part["arm"] == ARMS.index(ONEREC), part["begin_ms"] // 250
    part["expected_watch_ms"] = np.where(own, 10_000 * (1 + quarter), 10_000)
    part["first_item"] = np.where(own, part["user"] // len(ARMS) % (40 // (1 + quarter)), 7)
    found = course([part, part | {"seed": 2}])
    for arm in ARMS:
        wanted = [10.0, 20.0, 30.0, 40.0] if arm == ONEREC else [10.0] * 4
        assert [own["expected_watch_time_per_session_s"][0] for own in found[arm]] == wanted
        assert [own["different_first_items"] for own in found[arm]] == ([40, 20, 13, 10] if arm == ONEREC else [1] * 4)
    assert sum(own["sessions"] for quarters in found.values() for own in quarters) == 2 * len(part["user"])
    assert found[CASCADE][0]["share_of_five_most_shown"] == 1.0
    draw(found, tmp_path / "ab.png")
    assert (tmp_path / "ab.png").read_bytes().startswith(b"\x89PNG")


def test_intervals_of_a_quarter_are_of_users() -> None:
    parts = [visits(1)]
    for quarters, arm in zip(course(parts).values(), ARMS, strict=True):
        for own in quarters:
            mean, low, high = own["expected_watch_time_per_session_s"]
            assert low < MEANS[arm] / 1000 < high
            assert (high - low) / mean > 1.96 / np.sqrt(300)


def test_arms_are_a_function_of_the_user_and_about_equal() -> None:
    arms = [arm_of(user_id) for user_id in range(4000)]
    assert arms == [arm_of(user_id) for user_id in range(4000)]
    assert arms != [arm_of(user_id, 1) for user_id in range(4000)]
    assert all(900 < arms.count(arm) < 1100 for arm in ARMS)


def test_the_table_goes_into_the_paper_once(tmp_path: Path) -> None:
    result = {
        "protocol": described(QUICK),
        "seeds": [1],
        "commits": ["abcdef0123"],
        "machine": {"cpu": "a CPU"},
        "systems": [SYSTEM],
        **summarised([visits(1)]),
    }
    paper = tmp_path / "paper.md"
    paper.write_text("# Title\n")
    for _ in range(2):
        write_paper(paper, result, tmp_path / "ab-quick.png")
    text = paper.read_text()
    assert text.count("## Closed loop") == 1
    assert table(result) in text
    assert "(../evaluation/results/ab-quick.png)" in text
    assert "`python -m evaluation ab --quick --paper`" in text
    assert "users 1500 instead of all" in text
    assert "1,900 requests, 2 unanswered" in text
    assert "dead letters: 9 joiner: late" in text


def test_the_run_is_configured_by_its_form(tmp_path: Path) -> None:
    """Both trainers have seeds of equal samples, whatever the machine's speed."""
    file = tmp_path / "onerec.toml"
    options = Options(tmp_path, 0, 1.0, "small", None, simulate=True)
    form = replace(QUICK, frequency_power=0.25)
    file.write_text(_configuration(options, "127.0.0.1:9", form, seed=7))
    settings = load_settings(file)
    assert settings.trainer.random_seed == 7
    assert settings.trainer.seed.samples == QUICK.seed_samples
    assert settings.trainer.seed.threads == 1
    assert settings.trainer.preference_weight == QUICK.preference_weight == TrainerSettings().preference_weight
    assert settings.trainer.frequency_power == 0.25
    assert settings.inference.sampler.share == QUICK.pair_share
    assert settings.inference.sampler.candidates == QUICK.candidates
    assert settings.stream.joiner.idle_close_s >= 20, "no window closes while users wait for their answers"
