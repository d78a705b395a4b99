"""Dropout that draws one byte an element on CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BYTE_VALUES = 256


class Dropout(nn.Module):
    """Zeroes elements with a probability that is rounded to 1/256, and scales the others up.

    The CPU kernel of torch draws element by element, which took a tenth of a training step; eight elements
    share one 64-bit draw here. The numbers come from torch's generator, so its state decides them.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.cut = round(probability * BYTE_VALUES)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape; the identity in eval mode."""
        if not self.training or self.cut == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.cut / BYTE_VALUES)
        return x * self._scaled_mask(x)

    def _scaled_mask(self, x: Tensor) -> Tensor:
        """1 / keep or 0 for each element. Bytes are compared by clamping: that is vectorised, comparing is not."""
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        bytes_ = words.view(torch.uint8)[: x.numel()].view(x.shape)
        keep = bytes_.clamp_(self.cut - 1, self.cut).sub_(self.cut - 1).to(x.dtype)
        return keep.mul_(BYTE_VALUES / (BYTE_VALUES - self.cut))
