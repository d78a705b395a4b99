"""All preference rows pull equally hard at the start."""

from __future__ import annotations

import pytest
import torch

from evaluation.table1.preference import RECIPES, REJECTED
from evaluation.table1.protocol import SESSION_ITEMS
from onerec.model import preference
from onerec.model.presets import preset

TOKENS = SESSION_ITEMS * preset("small").levels


@pytest.mark.parametrize("name", ["dpo", "ipo", "cdpo", "rdpo", "simpo", "sdpo", "ipa"])
def test_lambda_times_the_slope_at_the_reference_is_the_same(name: str) -> None:
    recipe, reference = RECIPES[name], torch.tensor([-20.0])
    chosen = reference.clone().requires_grad_()
    if recipe.loss == "simpo":
        loss = preference.simpo(chosen, reference, tokens=TOKENS, beta=recipe.beta)
    elif recipe.loss == "sdpo":
        rejected = reference.expand(1, REJECTED)
        loss = preference.sdpo(chosen, rejected, reference, rejected, beta=recipe.beta)
    else:
        loss = getattr(preference, recipe.loss)(chosen, reference, reference, reference, beta=recipe.beta)
    (slope,) = torch.autograd.grad(recipe.weight * loss.sum(), chosen)
    assert -float(slope) == pytest.approx(0.0025, rel=0.05)
