"""How often items are shown lately, and that a model which is taught by it does not learn its own choices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onerec.model.likelihood import token_log_probs
from tests.trainer import toy
from tests.trainer.test_checkpoint import SURROUNDINGS
from tests.trainer.test_step import same, stream
from trainer.batches import pair_batch
from trainer.checkpoint import Checkpoints
from trainer.environment import make_deterministic
from trainer.frequency import RESCALED_AT, ExposureFrequency
from trainer.state import TrainState
from trainer.step import apply_step


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


@given(
    steps=st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=5), max_size=30),
    half_life=st.floats(1e-3, 50.0),
)
def test_counts_are_those_of_the_definition(steps: list[list[int]], half_life: float) -> None:
    """Also over so many half-lives that counts are scaled down."""
    frequency, shown = ExposureFrequency(half_life), list[tuple[int, float]]()
    for items in steps:
        frequency.add(np.array(items, dtype=np.int64))
        shown = [(item, age + len(items) / half_life) for item, age in shown] + [(item, 0.0) for item in items]
    counts: dict[int, float] = {}
    for item, age in shown:
        counts[item] = counts.get(item, 0.0) + 2.0**-age
    if not counts:
        return
    asked = np.array([*counts, 2**63 - 1], dtype=np.int64)
    total = sum(counts.values())
    found = frequency.times_usual(asked)
    if all(abs(count - 0.5) > 1e-9 for count in counts.values()):  # none is at the edge of what was shown lately
        usual = total / max(1, sum(count >= 0.5 for count in counts.values()))
        assert found == pytest.approx([*(count / usual for count in counts.values()), 0.0], rel=1e-9, abs=1e-8)


def test_what_was_shown_long_ago_is_forgotten() -> None:
    frequency = ExposureFrequency(half_life=1.0)
    frequency.add(np.array([7]))
    for _ in range(int(4 * RESCALED_AT)):
        frequency.add(np.array([8]))
    assert frequency.tensors()["items"].tolist() == [8]
    assert frequency.times_usual(np.array([7, 8])) == pytest.approx([0.0, 1.0])


def test_an_item_shown_more_than_usual_weighs_less_and_no_item_weighs_more() -> None:
    frequency = ExposureFrequency(half_life=1e9)
    frequency.add(np.array([1] * 90 + [2] * 6 + [3] * 3 + [4]))  # 25 each would be usual
    asked = np.array([1, 2, 4, 99])
    assert frequency.weights(asked, 1.0) == pytest.approx([25 / 90, 1.0, 1.0, 1.0])
    assert frequency.weights(asked, 0.5) == pytest.approx([(25 / 90) ** 0.5, 1.0, 1.0, 1.0])


def first_of_session(state: TrainState, item: int) -> float:
    """Log-probability of a session that begins with the item, whatever follows."""
    known = toy.catalogue()
    batch = pair_batch([toy.pair(0, [item, 1, 2], [item, 1, 2], (0.0, 0.0))], known, toy.TINY)
    with torch.no_grad():
        memory = state.onerec.encode(batch.history)
        return float(token_log_probs(state.onerec, memory, batch.chosen, known.trie)[0, 0].sum())


def test_a_model_learns_less_of_how_often_an_item_was_shown() -> None:
    """Six items that users take to alike, of which one is shown five times as often, three times the usual."""
    items, advantages = [10, 10, 10, 10, 10, 40, 41, 42, 43, 44], []
    for power in (0.0, 1.0):
        state = toy.state(learning_rate=3e-3, frequency_power=power)
        for step in range(60):
            apply_step(state, toy.step_input([toy.session(20 * step + k, [item]) for k, item in enumerate(items)]))
        others = np.mean([first_of_session(state, item) for item in items[5:]])
        advantages.append(first_of_session(state, 10) - others)
    assert advantages == [pytest.approx(np.log(5), abs=0.25), pytest.approx(np.log(5 / 3), abs=0.25)]


def test_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    state = toy.state(frequency_power=0.7, frequency_half_life=5.0)
    inputs = stream(9)
    for step_input in inputs[:5]:
        apply_step(state, step_input)
    Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    found = Checkpoints(tmp_path, keep=1).load(toy.TINY, state.settings)
    assert found is not None
    for step_input in inputs[5:]:
        assert apply_step(found[0], step_input) == apply_step(state, step_input)
    assert same(found[0].tensors(), state.tensors())
    assert state.tensors()["frequency.items"].numel() > 0


def test_is_switched_on_and_off_by_the_settings_of_a_restart(tmp_path: Path) -> None:
    """A checkpoint from before the setting serves as well."""
    state = toy.state()
    apply_step(state, stream(1)[0])
    plain = set(state.tensors())
    Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    asked = state.settings.model_copy(update={"frequency_power": 1.0})
    found = Checkpoints(tmp_path, keep=1).load(toy.TINY, asked)
    assert found is not None
    resumed, _ = found
    apply_step(resumed, stream(2)[1])
    assert set(resumed.tensors()) - plain == {"frequency.items", "frequency.counts", "frequency.age"}
    resumed.use(state.settings)
    assert set(resumed.tensors()) == plain


def test_a_refused_step_counts_what_it_consumed() -> None:
    """As it counts for the offsets: state and log stay in step."""
    state = toy.state(frequency_power=1.0)
    poison = dataclasses.replace(toy.pair(1, [1, 2, 3], [4, 5, 6], (-1.0, -1.0)), chosen_log_prob=float("inf"))
    refused = apply_step(state, toy.step_input([toy.session(1, [5, 6])], [poison]))
    assert refused.refused is not None
    assert torch.equal(state.tensors()["frequency.items"], torch.tensor([5, 6]))
