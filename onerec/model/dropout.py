"""Dropout that draws one byte an element on CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BYTE_VALUES = 256


class Dropout(nn.Dropout):
    """Zeroes elements with a probability that is rounded to 1/256, and scales the others up.

    The CPU kernel of torch draws element by element, which took a tenth of a training step; eight elements
    share one 64-bit draw here. The numbers come from torch's generator, so its state decides them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape; the identity in eval mode."""
        cut = round(self.p * BYTE_VALUES)
        if not self.training or cut == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, cut / BYTE_VALUES)
        return x * _scaled_mask(x, cut)


def _scaled_mask(x: Tensor, cut: int) -> Tensor:
    """0 or 1 / keep for each element. Bytes are compared by clamping: that is vectorised, comparing is not."""
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    bytes_ = words.view(torch.uint8)[: x.numel()].view(x.shape)
    keep = bytes_.clamp_(cut - 1, cut).sub_(cut - 1).to(x.dtype)
    return keep.mul_(BYTE_VALUES / (BYTE_VALUES - cut))
