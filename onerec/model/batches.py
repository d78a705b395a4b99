"""What goes into the model: histories of a batch of users."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LABEL_VALUES = 64
"""Label bytes are below this: what a user did with an exposure, six bits."""


@dataclass(frozen=True, slots=True)
class HistoryBatch:
    """The last exposures of each user, oldest first, padded on the RIGHT.

    `codes` int64 [B, n, L] semantic ids; `labels` int64 [B, n] label bytes; `mask` bool [B, n], True where there
    is an item. n may be 0 and a row may be empty: the encoder always adds a start token.
    """

    codes: Tensor
    labels: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.codes.shape[0]

    def to(self, device: torch.device | str) -> HistoryBatch:
        """Copy to a device."""
        return HistoryBatch(self.codes.to(device), self.labels.to(device), self.mask.to(device))
