"""Best and worst of the candidates: by which rewards, with which log-probabilities, under which constraints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.engine.search import Engine
from inference.sampler.pairs import Extremes, PairMaker, merged
from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import OneRec
from onerec.model.reward import RewardModel, Rewards, duration_feature
from onerec.settings import Candidates, RewardWeights, SamplerSettings
from tests.inference import toys

CONFIG = toys.config()
CATALOGUE = toys.catalogue(CONFIG, 60)
NOTHING = torch.empty(0, dtype=torch.int64)
HISTORY = HistoryArrays(CATALOGUE.item_ids[:6], np.zeros(6, np.int64), np.array([1, 3, 0, 1, 8, 32], np.uint8))


@pytest.fixture(scope="module")
def model() -> OneRec:
    return toys.model(CONFIG, scale=2.0)


@pytest.fixture(scope="module")
def reward() -> RewardModel:
    torch.manual_seed(1)
    made = RewardModel(CONFIG).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made


def maker(model: OneRec, reward: RewardModel, **settings: object) -> PairMaker:
    return PairMaker(Engine(model), reward, SamplerSettings.model_validate({"candidates": 24} | settings))


def extremes(made: PairMaker, seed: int = 7, catalogue: CatalogueSnapshot = CATALOGUE) -> Extremes:
    found = made.extremes(HISTORY, catalogue, exclude=NOTHING, allowed=None, seed=seed)
    assert found is not None
    return found


@pytest.mark.parametrize("method", list(Candidates))
def test_log_probs_and_rewards_are_those_of_the_models(model: OneRec, reward: RewardModel, method: Candidates) -> None:
    found = extremes(maker(model, reward, method=method))
    batch = history_batch([HISTORY], CATALOGUE, CONFIG)
    for scored in (found.best, found.worst):
        leaves = scored.leaves.unsqueeze(0)
        with torch.no_grad():
            expected = token_log_probs(model, model.encode(batch), leaves, CATALOGUE.trie).sum()
            duration = duration_feature(torch.from_numpy(CATALOGUE.durations_ms)[leaves])
            logits = reward(batch, CATALOGUE.trie.codes_of(leaves), duration, torch.ones_like(leaves, dtype=torch.bool))
        assert scored.log_prob == pytest.approx(float(expected), abs=1e-3)
        assert scored.rewards == pytest.approx(
            {name: float(value) for name, value in logits.probabilities()._asdict().items()}, abs=1e-4
        )
        assert len(set(scored.leaves.tolist())) == CONFIG.session_items
    assert found.best.scalar > found.worst.scalar
    assert found.candidates == 24
    assert 0 < found.unique_share <= 1


def test_best_and_worst_are_extreme_in_the_weighted_objective(model: OneRec, reward: RewardModel) -> None:
    for name in ("swt", "vtr", "wtr", "ltr"):
        only = {"swt": 0, "vtr": 0, "wtr": 0, "ltr": 0} | {name: 1}
        found = extremes(maker(model, reward, rewards=only))
        assert found.best.rewards[name] > found.worst.rewards[name]
        turned = extremes(maker(model, reward, rewards=only | {name: -1}))
        assert torch.equal(found.best.leaves, turned.worst.leaves)


def test_sampling_is_a_function_of_the_seed(model: OneRec, reward: RewardModel) -> None:
    one, again, other = (extremes(maker(model, reward), seed) for seed in (7, 7, 8))
    assert torch.equal(one.best.leaves, again.best.leaves)
    assert one.best.log_prob == again.best.log_prob
    assert not torch.equal(one.best.leaves, other.best.leaves)


def test_candidates_that_are_all_alike_give_no_pair(model: OneRec) -> None:
    torch.manual_seed(0)
    indifferent = RewardModel(CONFIG).eval()
    with torch.no_grad():
        for tower in indifferent.towers:
            for parameter in tower.parameters():
                parameter.zero_()
    made = maker(model, indifferent)
    assert made.extremes(HISTORY, CATALOGUE, exclude=NOTHING, allowed=None, seed=1) is None


def test_too_few_items_give_no_pair(model: OneRec, reward: RewardModel) -> None:
    allowed = torch.zeros(len(CATALOGUE), dtype=torch.bool)
    allowed[:2] = True  # a session has three items
    made = maker(model, reward)
    assert made.extremes(HISTORY, CATALOGUE, exclude=NOTHING, allowed=allowed, seed=1) is None


def test_an_unknown_user_gets_a_pair(model: OneRec, reward: RewardModel) -> None:
    found = maker(model, reward).extremes(HistoryArrays.empty(), CATALOGUE, exclude=NOTHING, allowed=None, seed=1)
    assert found is not None


def test_objectives_count_alike_whatever_their_scale() -> None:
    swt, tiny = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([3e-4, 2e-4, 1e-4])
    constant = torch.full((3,), 0.25)
    scalar = merged(Rewards(swt, constant, constant, constant + tiny), RewardWeights(swt=1, vtr=5, wtr=5, ltr=2))
    assert scalar.tolist() == pytest.approx([1.2247, 0, -1.2247], abs=1e-2)
    noise = constant + torch.tensor([0.0, 3e-8, -3e-8])
    assert merged(Rewards(noise, noise, noise, noise), RewardWeights()).abs().max() < 0.1


def test_constraints_hold_for_both(model: OneRec, reward: RewardModel) -> None:
    allowed = torch.arange(len(CATALOGUE)) % 2 == 0
    exclude = torch.tensor([0, 2, 4])
    found = maker(model, reward).extremes(HISTORY, CATALOGUE, exclude=exclude, allowed=allowed, seed=1)
    assert found is not None
    items = {*found.best.leaves.tolist(), *found.worst.leaves.tolist()}
    assert items <= set(range(6, len(CATALOGUE), 2))
