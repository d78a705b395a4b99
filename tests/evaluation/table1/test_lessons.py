"""No form shows a generative row the same few samples until it knows them by heart."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.table1.generative import lessons, tiger
from evaluation.table1.protocol import FULL, GenerativeTraining
from onerec.model.presets import ModelConfig, preset

SMALL = preset("small")
ROWS_USERS = 16_117
"""On the rows' side of KuaiRand-Pure, with 33 exposures each on average."""


@pytest.mark.parametrize(
    ("config", "training"), [(SMALL, FULL.onerec), (tiger(SMALL), FULL.tiger)], ids=["onerec", "tiger"]
)
def test_the_newest_sample_of_a_user_is_seen_a_few_times(config: ModelConfig, training: GenerativeTraining) -> None:
    settings, ages = lessons(config, training), np.arange(33 // config.session_items)
    shares = []
    for share in np.linspace(0, 1, 101):
        half_life = settings.half_life + (settings.final_half_life - settings.half_life) * share
        weight = 0.5 ** (ages / half_life)
        shares.append(weight[0] / weight.sum())
    assert training.samples * float(np.mean(shares)) / ROWS_USERS < 6
