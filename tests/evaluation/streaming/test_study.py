"""What serves a visit has learned nothing later than it may have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.baselines.running import SYSTEMS as COUNTED
from evaluation.narrowness import NARROW
from evaluation.streaming import learner, report, study
from evaluation.streaming.learner import Candidates, batches, settings_of
from evaluation.streaming.protocol import (
    BEGIN_MS,
    CHOSEN,
    DAILY,
    DAY_MS,
    FROZEN,
    INTERVALS_MS,
    ONLINE,
    WITH_COUNTS,
    WITH_POPULARITY,
    Recipe,
)
from evaluation.streaming.run import run, so_far
from onerec.settings import EvaluationSettings
from tests.evaluation.streaming.small_stream import CONFIG, FORM, timeline
from trainer.state import TrainState


class Witness:
    """Instead of the server: ranks every visit by the step that serves it."""

    asked = 0

    def __init__(self, *_: object) -> None:
        self.version = -1
        self.holders = 0

    def serve(self, model: Any, _: object, version: int) -> None:
        assert model.step == version
        assert not self.holders, "somebody still serves with it"
        self.version = version

    def rank(self, cases: Any) -> Candidates:
        Witness.asked += len(cases)
        found = Candidates.of(len(cases))
        found.leaves[:] = self.version
        return found


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> TrainState:
    """A state that counts its steps and learns nothing."""
    state = TrainState.new(CONFIG, settings_of(FORM, 1))
    state.onerec.step = 0  # type: ignore[assignment]

    def learn(state: TrainState, *_: object) -> None:
        state.step += 1
        state.onerec.step = state.step  # type: ignore[assignment]

    Witness.asked = 0
    monkeypatch.setattr(learner, "Server", Witness)
    monkeypatch.setattr(study, "learn", learn)
    monkeypatch.setattr(study, "learn_day", learn)
    return state


def test_weights_serve_from_the_first_multiple_of_the_interval_after_their_step(counting: TrainState) -> None:
    days: dict[int, dict[str, Any]] = {}

    def on_day(midnight_ms: int, early: dict[str, Candidates]) -> None:
        days[midnight_ms] = {system: own.ranked.copy() for system, own in early.items()}

    served = study.online(timeline(), counting, FORM.recipe, FORM.from_ms, on_day=on_day)
    found = {system: candidates.ranked for system, candidates in served.items()}
    for midnight_ms, early in days.items():
        before = timeline().cases.begin_ms < midnight_ms
        for system, ranked in early.items():
            assert np.array_equal(ranked[before], found[system][before]), (system, midnight_ms)
    assert list(days) == [BEGIN_MS + day * DAY_MS for day in (1, 2, 3, 4, 5)]
    times = np.array([batch.time_ms for batch in batches(timeline().sessions, FORM.recipe)])
    begin_ms = timeline().cases.begin_ms
    told = begin_ms >= FORM.from_ms
    assert 0 < told.sum() < len(told)
    for system, every_ms in INTERVALS_MS.items():
        exchanged_ms = begin_ms // every_ms * every_ms
        steps = np.searchsorted(times, exchanged_ms, side="right")
        rows = told | (system == ONLINE)
        assert found[system][rows, 0].tolist() == steps[rows].tolist(), system
        assert (found[system][~rows] == -1).all()
    assert not found[FROZEN][told].any()
    assert Witness.asked < 0.9 * len(found) * told.sum(), "what another arm served from the same version is reused"
    assert len(np.unique(found[ONLINE])) > 20 > len(np.unique(found["sync 1 day"][told]))


def test_the_daily_batch_serves_what_it_learned_at_midnight(counting: TrainState) -> None:
    found = study.daily(timeline(), counting, FORM.recipe, BEGIN_MS)[DAILY]
    days = (timeline().cases.begin_ms - BEGIN_MS) // DAY_MS
    assert found[:, 0].tolist() == days.tolist()


def test_counts_leave_out_what_the_user_has_seen() -> None:
    found = study.counts(timeline(), EvaluationSettings())
    assert set(found) == {*COUNTED, *study.POWERS.values()}
    for ranked in found.values():
        assert (ranked >= 0).any(1).mean() > 0.9
        for case, row in enumerate(ranked.tolist()):
            assert not (set(row) - {-1}) & set(timeline().seen(case).tolist())


def test_a_recipe_weighs_what_is_shown_often_less() -> None:
    sessions, learned = timeline().sessions[:64], []
    for power in (0.0, 1.0):
        form = replace(FORM, recipe=Recipe(frequency_power=power))
        state = TrainState.new(CONFIG, settings_of(form, 1))
        learner.learn(state, timeline(), sessions)
        learned.append(state.onerec.state_dict())
    plain, weighed = learned
    assert any(not torch.equal(tensor, weighed[name]) for name, tensor in plain.items())


def test_a_run_is_kept_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.streaming.run.load", lambda *_: timeline())
    place = run(FORM, [1], tmp_path, config=CONFIG, daily=False)
    assert DAILY not in report.summarise(place, FORM)["systems"]
    assert run(FORM, [1], tmp_path, config=CONFIG) == place
    monkeypatch.setattr("evaluation.streaming.run.load", lambda *_: pytest.fail("nothing is missing"))
    assert run(FORM, [1], tmp_path, config=CONFIG) == place

    summary = report.summarise(place, FORM)
    assert set(summary["systems"]) == set(report.SYSTEMS)
    assert summary["visits"] == (timeline().cases.begin_ms >= FORM.from_ms).sum()
    (trained,) = summary["seeds_trained"]
    assert trained["commit"]
    assert trained["seconds"] > 0
    assert set(summary["chosen_before"]) == {CHOSEN, WITH_COUNTS, WITH_POPULARITY}
    assert summary["chosen_before"][WITH_POPULARITY][0]["cooccurrence"] == 0
    for figures in summary["systems"].values():
        assert 0 <= figures["hit_rate_at_10"]["mean"] < 0.5
        assert 0 < figures[NARROW] <= 1
    one, other = (summary["systems"][system]["hit_rate_at_10"]["mean"] for system in (ONLINE, FROZEN))
    assert summary["online_minus"][FROZEN]["hit_rate_at_10"]["difference"] == pytest.approx(one - other, abs=2e-5)

    file = place / "so-far" / "candidates.1.npz"
    with np.load(file) as found:
        columns = {name: found[name] for name in found.files}
    np.savez(file, **columns | {"reached_ms": np.array(BEGIN_MS + 4 * DAY_MS)})
    monkeypatch.setattr("evaluation.streaming.run.load", lambda *_: timeline())
    early, until_ms = so_far(FORM, [1], tmp_path)
    assert until_ms == BEGIN_MS + 4 * DAY_MS
    unfinished = report.summarise(early, FORM, until_ms)
    assert unfinished["unfinished_until"] == "2022-04-29"
    assert unfinished["by_day"] == [
        {**day, "hit_rate_at_10": {name: rate for name, rate in day["hit_rate_at_10"].items() if name != DAILY}}
        for day in summary["by_day"]
        if day["day"] < "2022-04-29"
    ]

    paper = tmp_path / "paper.md"
    paper.write_text("# Title\n\nText.\n")
    for _ in range(2):
        report.write_paper(paper, summary, None)
    assert paper.read_text().count("## Learning from the stream") == 1
    assert "`counts, chosen`: popularity to the power" in paper.read_text()
    assert paper.read_text().startswith("# Title\n\nText.\n")
