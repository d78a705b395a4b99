"""What is learned from: every item of a training sequence with what came before it, and if asked with what came after.

Order says little in this data: most of a user's reviews are of a few days. Read backwards a sequence gives as many
samples again, and the first items of sequences, which nothing comes before, become targets, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.beauty.dataset import Beauty, Longs, windows

JITTER = 3.0
"""Items by which lengths within a batch may differ by chance."""


@dataclass(frozen=True, slots=True)
class Samples:
    """S samples on one device. The first `forward` of them read sequences forwards, the others backwards."""

    histories: Tensor  # int32 [S, n], oldest first; -1 where there is none
    targets: Tensor  # int64 [S]
    lengths: Tensor  # int64 [S], on the CPU
    forward: int

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Samples:
        """Copy to a device."""
        return Samples(self.histories.to(device), self.targets.to(device), self.lengths, self.forward)

    def count(self, backward_share: float) -> int:
        """Samples of one epoch: all that read forwards, and so many of these again that read backwards."""
        return self.forward + min(round(backward_share * self.forward), len(self) - self.forward)

    def epoch(self, backward_share: float, size: int, generator: torch.Generator) -> Tensor:
        """Rows [batches, size] of one epoch, those of a batch with histories of about one length.

        Drawn on the CPU, so that a seed means the same on every device.
        """
        others = torch.randperm(len(self) - self.forward, generator=generator)
        others = others[: self.count(backward_share) - self.forward] + self.forward
        rows = torch.cat([torch.arange(self.forward), others])
        rows = rows[torch.randperm(len(rows), generator=generator)][: len(rows) // size * size]
        lengths = self.lengths[rows] + JITTER * torch.rand(len(rows), generator=generator)
        batches = rows[torch.argsort(lengths)].view(-1, size)
        return batches[torch.randperm(len(batches), generator=generator)]


def prefixes(beauty: Beauty, length: int) -> Samples:
    """All samples of the training sequences, with at most `length` items of history."""
    starts, items = beauty.training()
    ahead, targets = _forward(starts, items, length)
    backwards = starts[-1] - starts[::-1]  # the whole row of items turned round: users, too, but they keep together
    back, others = _forward(backwards, items[::-1].copy(), length)
    histories = torch.from_numpy(np.concatenate([ahead, back]).astype(np.int32))
    lengths = (histories >= 0).sum(1)
    return Samples(histories, torch.from_numpy(np.concatenate([targets, others])), lengths, len(targets))


def _forward(starts: Longs, items: Longs, length: int) -> tuple[Longs, Longs]:
    lengths = np.diff(starts)
    begins = np.repeat(starts[:-1], lengths)
    at = np.arange(len(items))
    usable = at > begins  # something comes before
    ends = at[usable]
    return windows(items, np.maximum(begins[usable], ends - length), ends, length), items[usable]
