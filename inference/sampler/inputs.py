"""What the sampler knows: the catalogue, and the histories of all users. Used by one thread only."""

from __future__ import annotations

import logging

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.features import HistoryArrays
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.model.presets import preset
from onerec.settings import Settings
from schemas.topics import HISTORIES, ITEM_TOKENS

LOG = logging.getLogger(__name__)
CATCH_UP_S = 120.0
SNAPSHOT_AGE_S = 1.0


class Inputs:
    """Follows item-tokens and histories; `poll` applies what has come."""

    def __init__(self, settings: Settings) -> None:
        config = preset(settings.model.preset)
        self._catalogue = Catalogue(config.levels, config.codes)
        self._tokens = TopicFollower(settings.kafka, ITEM_TOKENS, self._on_tokens, service="sampler")
        self._by_user: dict[int, HistoryArrays] = {}
        self._histories = TopicFollower(settings.kafka, HISTORIES, self._on_history, service="sampler")

    def catch_up(self) -> None:
        """Read both topics to their ends as of now. Raises DependencyMissingError."""
        self._tokens.catch_up(CATCH_UP_S)
        self._histories.catch_up(CATCH_UP_S)

    def poll(self) -> None:
        """Apply what has come, without waiting."""
        self._tokens.poll(0)
        self._histories.poll(0)

    def catalogue(self) -> CatalogueSnapshot | None:
        """The catalogue, at most a second old; None while it is empty."""
        return self._catalogue.snapshot(SNAPSHOT_AGE_S) if len(self._catalogue) else None

    def history(self, user_id: int) -> HistoryArrays:
        """The user's last exposures; empty for a user nobody has seen."""
        return self._by_user.get(user_id) or HistoryArrays.empty()

    def close(self) -> None:
        """Leave the broker."""
        self._tokens.close()
        self._histories.close()

    def _on_tokens(self, received: Received) -> None:
        refusal = self._catalogue.apply(received.record, received.offset + 1)
        if refusal is not None:
            LOG.warning("item-tokens@%d refused: %s: %s", received.offset, refusal.reason, refusal.detail)

    def _on_history(self, received: Received) -> None:
        self._by_user[received.record.user_id] = HistoryArrays.of(received.record)
