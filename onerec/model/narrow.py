"""The narrowest signed integers that hold what is counted: a catalogue of ten million items has many of them."""

from __future__ import annotations

import torch
from torch import Tensor

_WIDTHS = (torch.int16, torch.int32, torch.int64)


def narrow_dtype(largest: int) -> torch.dtype:
    """Of 16, 32 or 64 bits, for numbers from 0 to `largest`."""
    return next(dtype for dtype in _WIDTHS if largest <= torch.iinfo(dtype).max)


def narrowed(values: Tensor, largest: int) -> Tensor:
    """`values`, none above `largest`, in no more bits than these need; the same tensor where it is so already."""
    return values.to(narrow_dtype(largest))
