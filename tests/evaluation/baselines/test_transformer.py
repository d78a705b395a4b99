"""A trunk that norms its input hears a small embedding as well as a large one."""

from __future__ import annotations

import torch
from torch import Tensor

from evaluation.baselines.transformer import Trunk, TrunkSettings


def states(trunk: Trunk, embedded: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = trunk.eval()(embedded, torch.ones(embedded.shape[:2], dtype=torch.bool))
    return found


def test_with_the_norm_states_do_not_depend_on_how_large_embeddings_are() -> None:
    torch.manual_seed(4)
    embedded = torch.randn(3, 5, 16)
    for norm in (True, False):
        trunk = Trunk(TrunkSettings(length=5, width=16, heads=2, hidden=32, input_norm=norm), causal=True)
        torch.nn.init.zeros_(trunk.position.weight)
        same = torch.allclose(states(trunk, embedded), states(trunk, 100 * embedded), atol=1e-3)
        assert same == norm
