"""AdamW without torch's compiler, which nothing here uses.

torch's own optimizers import torch._dynamo, and with it sympy, only to keep the compiler out of their methods. That is
almost half of what the start of a trainer costs a processor, and seventy megabytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Adam, AdamW, Optimizer

WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods of optimizers that torch hides from its compiler."""


class EagerAdamW(AdamW):
    """Does what AdamW does, bit for bit."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """As AdamW's own below what it is wrapped in."""
        return _STEP(self, closure)


def _past_the_wrappers() -> Any:
    """Let the methods be called as they are; the step. Where another torch wraps them otherwise, nothing changes."""
    for name in WRAPPED:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dynamo_disable = method
    return getattr(Adam.step, "__wrapped__", Adam.step)


_STEP = _past_the_wrappers()
