"""The item-wise model's loss, of the positions with a target alone, is SASRec's own."""

from __future__ import annotations

import dataclasses

import torch

from evaluation.baselines.sasrec import SASRec
from evaluation.beauty.sequence import TRUNK, as_batch, softmax_loss


def test_the_loss_is_sasrecs() -> None:
    torch.manual_seed(2)
    model = SASRec(30, dataclasses.replace(TRUNK, width=16, dropout=0.0), "softmax")
    histories = torch.tensor([[4, 9, 2, 7], [29, 0, -1, -1], [1, 2, 3, -1]])
    own = model.loss(as_batch(histories))
    assert own is not None
    torch.testing.assert_close(softmax_loss(model, histories), own)
