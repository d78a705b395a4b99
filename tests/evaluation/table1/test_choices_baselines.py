"""Epochs of baselines and widths of cascades are chosen before the evaluated period."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.baselines.cascade import Sizes
from evaluation.baselines.multi_objective import ObjectiveModel
from evaluation.baselines.sequences import Sequences
from evaluation.table1 import choices_baselines, choices_page
from evaluation.table1.choices import with_something_to_find
from evaluation.table1.choices_baselines import Development, Later, Trial, held_out, tried
from evaluation.table1.kept import Context
from evaluation.table1.protocol import FULL, PRE_RANKED, RETRIEVED
from evaluation.table1.rows import sequence_model
from onerec.model.presets import ModelConfig
from tests.evaluation.table1.small_world import CONFIG, small_world


@pytest.fixture
def bench(tmp_path: Path) -> Development:
    """The users' last two exposures are the development period's."""
    world = with_something_to_find(small_world())
    past = world.rows.past
    sizes = np.diff(past.starts)
    return Development(world, Later(past, np.minimum(sizes, 2)), tmp_path)


def test_a_model_that_has_learned_rates_what_it_learned_better(bench: Development) -> None:
    once, often = (tried(Trial("ranker", epochs=epochs), bench) for epochs in (1, 12))
    assert often["loss"] < once["loss"] - 0.05
    assert often["loss"] == pytest.approx(sum(often["losses"]))


def test_only_new_exposures_are_rated(bench: Development) -> None:
    """What a user did last is foretold from what came before; what came before is not foretold itself."""
    at = Context(bench.world, FULL, CONFIG, 1, bench.folder)
    model = sequence_model("pre-ranker", at, 1)
    assert isinstance(model, ObjectiveModel)
    past, new = bench.later
    watch_ms = past.watch_ms.copy()
    ends = past.starts[1:]
    watch_ms[np.concatenate([np.arange(end - count, end) for end, count in zip(ends, new, strict=True)])] = 0
    watched_nothing = Later(Sequences(past.starts, past.items, past.labels, watch_ms), new)
    watch_ms = past.watch_ms.copy()
    watch_ms[past.starts[:-1]] = 0
    watched_nothing_at_first = Later(Sequences(past.starts, past.items, past.labels, watch_ms), new)
    usual = held_out(model, bench.later)
    assert held_out(model, watched_nothing)["losses"][0] != pytest.approx(usual["losses"][0])
    assert held_out(model, watched_nothing)["losses"][1:] == pytest.approx(usual["losses"][1:], nan_ok=True)
    assert held_out(model, watched_nothing_at_first)["losses"] == pytest.approx(usual["losses"], nan_ok=True)


def test_a_cascade_is_of_the_kept_models(bench: Development, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tried(Trial("cascade-sasrec", sizes=Sizes(20, 10)), bench)
    assert 0 <= found["recall_at_10"] <= 1

    def nobody_trains(*_: object) -> None:
        raise AssertionError("it is trained already")

    monkeypatch.setattr("evaluation.table1.rows.train", nobody_trains)
    assert tried(Trial("cascade-sasrec", sizes=Sizes(20, 10)), bench)["recall_at_10"] == found["recall_at_10"]


def test_trials_are_kept_and_tell_what_they_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = list[Trial]()

    def development(_: ModelConfig) -> Any:
        return with_something_to_find(small_world())

    def figures(trial: Trial, _: Development) -> dict[str, Any]:
        made.append(trial)
        own: dict[str, Any] = {"row": trial.name, "cases": 7}
        if trial.sizes is not None:
            return own | {"retrieved": trial.sizes.retrieved, "pre_ranked": trial.sizes.pre_ranked, "recall_at_10": 0.1}
        return own | {"epochs": trial.epochs, "loss": 1.25}

    monkeypatch.setattr(choices_baselines, "development", development)
    monkeypatch.setattr(choices_baselines, "later_of", lambda world: Later(world.rows.past, np.zeros(1, np.int64)))
    monkeypatch.setattr(choices_baselines, "tried", figures)
    monkeypatch.setattr(choices_baselines, "EPOCHS", {"ranker": (1, FULL.epochs_of("ranker"))})
    monkeypatch.setattr(choices_baselines, "SIZES", (Sizes(RETRIEVED, PRE_RANKED), Sizes(7, 3)))
    found = choices_baselines.choose(tmp_path)
    count = len(made)
    assert choices_baselines.choose(tmp_path) == found
    assert len(made) == count == 2 + 2 * 2
    table = choices_page.baselines_table(found)
    assert f"| ranker | **{FULL.epochs_of('ranker')}** | - | - | 1.2500 |" in table
    assert "| cascade-crm | 7, 3 | 0.1000 | - | - |" in table
    choices_page.write_baselines(tmp_path / "paper.md", found)
    assert "28 April" in (tmp_path / "paper.md").read_text()


def test_what_the_full_form_takes_was_tried() -> None:
    assert all(FULL.epochs_of(name) in epochs for name, epochs in choices_baselines.EPOCHS.items())
    assert Sizes(RETRIEVED, PRE_RANKED) in choices_baselines.SIZES
