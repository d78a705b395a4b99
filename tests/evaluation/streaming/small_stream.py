"""A few users of the real log with embeddings that take no time to make."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from evaluation.streaming.protocol import BEGIN_MS, DAY_MS, Form, Recipe
from evaluation.streaming.stream import Timeline, load
from onerec.model.presets import ModelConfig, preset
from onerec.settings import JoinerSettings
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures, Histories, Items

USERS = 150
FORM = Form(
    name="small",
    users_of=1,
    from_ms=BEGIN_MS + DAY_MS,
    end_ms=BEGIN_MS + 5 * DAY_MS,
    samples=256,
    recipe=Recipe(batch=8, wait_s=600, batch_epochs=2),
)
CONFIG: ModelConfig = dataclasses.replace(preset("tiny"), codes=24, session_items=5, history_items=50)


class FewUsers:
    """The first users of the real log, and the items that they met."""

    def histories(self, last: int) -> Histories:
        every = KuaiRand().histories(last)
        end = every.starts[USERS]
        return Histories(
            every.user_ids[:USERS],
            every.starts[: USERS + 1],
            every.items[:end],
            every.times_ms[:end],
            every.labels[:end],
            every.updated_ms[:USERS],
        )

    def exposures(self) -> Exposures:
        every = KuaiRand().exposures()
        return every.rows(np.flatnonzero(np.isin(every.user_ids, self.histories(1).user_ids)))

    def items(self) -> Items:
        ids = np.union1d(self.histories(1_000_000).items, self.exposures().item_ids)
        count = len(ids)
        embeddings = np.random.default_rng(1).normal(size=(count, CONFIG.embedding_dim)).astype(np.float32)
        nothing = np.zeros(count, np.int64)
        return Items(ids, embeddings, nothing + 40_000, nothing, ((),) * count, nothing)


@cache
def timeline() -> Timeline:
    """Loaded once."""
    return load(FORM, CONFIG, JoinerSettings(), FewUsers())
