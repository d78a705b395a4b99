"""What worker and sampler do on a GPU besides the search: reward scores, pairs, versions read into its memory."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from inference.engine.search import Engine
from inference.sampler.pairs import PairMaker
from inference.weights import _Modules
from onerec.features import HistoryArrays
from onerec.model.onerec import OneRec
from onerec.model.presets import preset
from onerec.model.reward import RewardModel
from onerec.settings import Candidates, SamplerSettings
from tests.inference import toys

CONFIG = toys.config()
CATALOGUE = toys.catalogue(CONFIG, 60)
NOTHING = torch.empty(0, dtype=torch.int64)
HISTORY = HistoryArrays(CATALOGUE.item_ids[:6], np.zeros(6, np.int64), np.array([1, 3, 0, 1, 8, 32], np.uint8))


def models() -> tuple[OneRec, RewardModel]:
    torch.manual_seed(1)
    return toys.model(CONFIG, scale=2.0), RewardModel(CONFIG).eval()


def test_pairs_are_those_of_the_cpu(device: torch.device) -> None:
    onerec, reward = models()
    settings = SamplerSettings(candidates=24, method=Candidates.BEAM)
    makers = [
        PairMaker(Engine(one, precise=True), other, settings)
        for one, other in ((onerec, reward), (copy.deepcopy(onerec).to(device), copy.deepcopy(reward).to(device)))
    ]
    expected, found = (maker.extremes(HISTORY, CATALOGUE, exclude=NOTHING, allowed=None, seed=7) for maker in makers)
    assert expected is not None
    assert found is not None
    for one, other in ((found.best, expected.best), (found.worst, expected.worst)):
        assert one.leaves.tolist() == other.leaves.tolist()
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-3)
        assert one.rewards == pytest.approx(other.rewards, abs=1e-4)


def test_sampled_pairs_are_a_function_of_the_seed(device: torch.device) -> None:
    onerec, reward = models()
    maker = PairMaker(Engine(onerec.to(device), precise=True), reward.to(device), SamplerSettings(candidates=24))
    pairs = [maker.extremes(HISTORY, CATALOGUE, exclude=NOTHING, allowed=None, seed=7) for _ in range(2)]
    assert pairs[0] is not None
    assert pairs[1] is not None
    assert torch.equal(pairs[0].best.leaves, pairs[1].best.leaves)
    assert pairs[0].best.leaves.device.type == "cpu"


def test_a_version_is_read_into_the_device(device: torch.device) -> None:
    modules = _Modules("tiny", torch.float32, device)
    torch.manual_seed(3)
    version = {f"onerec.{k}": v.bfloat16() for k, v in OneRec(preset("tiny")).state_dict().items()}
    version |= {f"reward.{k}": v.bfloat16() for k, v in RewardModel(preset("tiny")).state_dict().items()}
    modules.fill(version)
    for prefix, module in (("onerec", modules.onerec), ("reward", modules.reward)):
        for name, tensor in module.state_dict().items():
            assert tensor.device == device
            assert torch.equal(tensor.cpu(), version[f"{prefix}.{name}"].to(tensor.dtype))
