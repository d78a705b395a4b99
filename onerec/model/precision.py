"""Mixed precision: parameters and the residual stream stay float32, matrix products run in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def product_dtype(wanted: bool, states: Tensor) -> torch.dtype:
    """The dtype of matrix products for `states`: bfloat16 where wanted and fast, else that of the states.

    A CPU without bfloat16 instructions emulates them, many times slower than float32.
    """
    if not wanted or states.dtype != torch.float32:
        return states.dtype
    fast = states.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else states.dtype


def widen(x: Tensor) -> Tensor:
    """Low precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Linear(nn.Linear):
    """A product without bias in the dtype of its input: float32 weights are cast when they are used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return functional.linear(x, self.weight.to(x.dtype))
