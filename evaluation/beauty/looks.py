"""Looks at validation while a model trains, and the weights of the best of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Best:
    """The weights that a look found best, kept on the CPU."""

    def __init__(self) -> None:
        self.epoch, self.value = 0, float("-inf")
        self._weights: dict[str, Tensor] = {}

    def look(self, epoch: int, value: float, model: nn.Module) -> None:
        """Keep the weights of `epoch` where its value is above all before."""
        if value > self.value:
            self.epoch, self.value = epoch, value
            self._weights = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Give the model the best look's weights. Raises RuntimeError where nothing was looked at."""
        model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """All of it, to go on from."""
        return {"epoch": self.epoch, "value": self.value, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.value, self._weights = state["epoch"], state["value"], state["weights"]


def looks_at(epochs: int, looks: int) -> set[int]:
    """After which epochs validation is looked at: the last, and others before it down to the middle."""
    return {epochs - round(k * (epochs - epochs // 2) / looks) for k in range(looks)}
