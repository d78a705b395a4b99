"""What the sampler knows besides the model: the catalogue, and the histories of all users."""

from __future__ import annotations

import time
from contextlib import ExitStack

import torch
from torch import Tensor

from inference.catalogue import CatalogueFollower
from inference.engine.index import IndexCache
from inference.histories import HistoryStore
from inference.worker.limits import TagIndex, allowed_items, excluded_leaves
from onerec.catalogue import CatalogueSnapshot
from onerec.errors import DependencyMissingError
from onerec.features import HistoryArrays
from onerec.kafka import admin
from onerec.model.presets import preset
from onerec.service import Stop
from onerec.settings import Settings
from schemas.records import Request
from schemas.topics import HISTORIES

CATCH_UP_S = 120.0
WAIT_S = 0.05


class Inputs:
    """Kept up by threads of its own; to be used by one other thread."""

    def __init__(self, settings: Settings, indexes: IndexCache, device: torch.device) -> None:
        """Begin to follow item-tokens and all partitions of histories; indexes are made on `device`."""
        kafka = settings.kafka
        self._resources = ExitStack()
        self._tags = TagIndex()
        self._items = self._resources.enter_context(
            CatalogueFollower(
                kafka, preset(settings.model.configuration), service="sampler", indexes=indexes, device=device
            )
        )
        self._histories = self._resources.enter_context(
            HistoryStore(kafka, settings.store.state_dir / "sampler", service="sampler")
        )
        self._partitions = frozenset(admin.end_offsets(kafka, HISTORIES))
        self._histories.assign(self._partitions)

    def close(self) -> None:
        """Leave the broker, put the histories on disk."""
        self._resources.close()

    def wait(self, stop: Stop) -> None:
        """Wait until both have been read to their ends as of now. Raises DependencyMissingError."""
        deadline_s = time.monotonic() + CATCH_UP_S
        while not (self._items.caught_up and self._histories.restored() == self._partitions):
            self.check()
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(
                    f"Items and histories could not be read within {CATCH_UP_S:g} s.", "See the broker's log."
                )
            if stop.wait(WAIT_S):
                return

    def check(self) -> None:
        """Raise what ended the following, if anything did."""
        self._histories.check()
        self._items.snapshot(0)

    def catalogue(self, codebook_version: int) -> CatalogueSnapshot | None:
        """The catalogue in this codebook's codes, about a second old; None before it has an item."""
        return self._items.snapshot(codebook_version)

    def history(self, user_id: int) -> HistoryArrays:
        """The user's last exposures; empty for a user nobody has seen."""
        return self._histories.get([user_id])[0]

    def constraints(
        self, request: Request, history: HistoryArrays, catalogue: CatalogueSnapshot
    ) -> tuple[Tensor, Tensor | None]:
        """What the request leaves out, as the worker reads it: int64 leaves, and bool [N items] or None for all."""
        mask = allowed_items(request, catalogue, self._tags)
        excluded = torch.from_numpy(excluded_leaves(request, history.items, catalogue))
        return excluded, None if mask is None else torch.from_numpy(mask)
