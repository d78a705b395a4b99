"""What a step needs besides the models, on their device; on CPU everything stays what it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from onerec.model.batches import HistoryBatch
from onerec.model.trie import Trie

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Batch = TypeVar("Batch", bound="DataclassInstance")


def moved(batch: Batch, device: torch.device) -> Batch:
    """A dataclass of tensors and histories, copied to a device; itself on CPU."""
    if device.type == "cpu":
        return batch
    there: dict[str, Any] = {
        one.name: value.to(device)
        for one in fields(batch)
        if isinstance(value := getattr(batch, one.name), (Tensor, HistoryBatch))
    }
    return replace(batch, **there)


class NewestTrie:
    """The trie that was asked for last, on its device: a catalogue stays for many steps."""

    def __init__(self) -> None:
        self._of: Trie | None = None
        self._placed: Trie | None = None

    def on(self, device: torch.device, trie: Trie) -> Trie:
        """The trie on `device`."""
        if trie.device == device:
            return trie
        if self._placed is None or self._of is not trie or self._placed.device != device:
            self._of, self._placed = trie, trie.to(device)
        return self._placed
