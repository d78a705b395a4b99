"""`python -m stream codebook`: fits a codebook on topic items as it is now, and saves it unless nothing changed."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onerec.errors import DependencyMissingError, OneRecError, SettingsError
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.model.presets import preset
from onerec.service import run_service
from onerec.settings import Settings
from onerec.weights.folder import Folder
from schemas.records import Item
from schemas.topics import ITEMS
from stream.tokenizer import codebook as codebooks
from stream.tokenizer.codebook import Codebook
from stream.tokenizer.fit import Fit, FitSettings, fit
from stream.tokenizer.report import Report, describe
from stream.tokenizer.tokenise import Refusal, values_of

LOG = logging.getLogger(__name__)
READ_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """The usable items in the order in which they were first published: ids [N], embeddings [N, d], first tags."""

    item_ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    first_tags: list[str]
    skipped: int


def run_codebook(settings: Settings, report: bool = False, as_json: bool = False) -> int:
    """Fit, save and, where asked, print what it is worth; the exit code."""

    def body(_stop: object) -> None:
        made = fit_codebook(settings)
        if as_json:
            import json  # noqa: PLC0415

            print(json.dumps(made.as_dict()))  # noqa: T201 - the command's output
        elif report:
            from stream.tokenizer.report_table import print_report  # noqa: PLC0415 - rich is not needed otherwise

            print_report(made)

    return run_service("codebook", settings, body, metrics=False)


def fit_codebook(settings: Settings) -> Report:
    """Read topic items to its end, fit, save as the next version, and measure.

    Where the newest codebook in the store is the same, nothing is saved and it is the one reported: fitting
    twice on the same items does not give all of them another version. Raises DependencyMissingError for no
    broker, topic or item, SettingsError where the preset has too few ids.
    """
    collected = collect(settings)
    started = time.monotonic()
    fit_settings = fit_settings_of(settings)
    made = fit(collected.embeddings, fit_settings)
    fit_s = time.monotonic() - started
    saved = _saved(Folder(settings.store.uri), collected.item_ids, made, fit_settings)
    return describe(saved, made, collected.embeddings, collected.first_tags, fit_s=fit_s, skipped=collected.skipped)


def fit_settings_of(settings: Settings) -> FitSettings:
    """Levels and codes of the model's preset, the rest of the tokenizer's table."""
    own = settings.stream.tokenizer
    try:
        sizes = preset(settings.model.preset)
    except ValueError as error:
        raise SettingsError(f"{error}", "Mend model.preset.") from error
    return FitSettings(
        levels=sizes.levels, codes=sizes.codes, stored=own.stored, max_sweeps=own.max_sweeps, seed=own.seed
    )


def collect(settings: Settings) -> Collected:
    """The newest record of every item on the topic; bad ones are left out here, and refused by the tokenizer."""
    records: dict[int, Item] = {}

    def take(received: Received) -> None:
        records[received.record.item_id] = received.record

    overlooked = _Overlooked(settings.kafka, "codebook")
    follower = TopicFollower(settings.kafka, ITEMS, take, service="codebook", refused=overlooked)
    try:
        follower.catch_up(READ_TIMEOUT_S)
    finally:
        follower.close()
    found = usable(list(records.values()))
    return replace(found, skipped=found.skipped + overlooked.count)


class _Overlooked(DeadLetters):
    """Leaves bad records to the tokenizer, which reads them too: they belong in dead-letters once."""

    def refuse(self, **letter: Any) -> None:
        """Pass over one record."""
        self.count += 1
        LOG.info("passed over %s[%d]@%d: %s", ITEMS.name, letter["partition"], letter["offset"], letter["detail"])


def usable(items: list[Item]) -> Collected:
    """Items whose embedding is sound and as wide as most are. Raises DependencyMissingError where there is none."""
    sizes = Counter(len(item.embedding) for item in items if item.embedding)
    width = max(sizes, key=lambda size: (sizes[size], -size), default=0) // 4
    values = [values_of(item, width) for item in items]
    sound = [row for row, value in enumerate(values) if not isinstance(value, Refusal)]
    if not sound or not width:
        raise DependencyMissingError(
            f"Topic items has {len(items)} items, none of them with an embedding.",
            "Publish items first: `python -m stream replay --only items`.",
        )
    if len(sound) < len(items):
        LOG.warning("%d items of %d are not used: their embeddings are unsound", len(items) - len(sound), len(items))
    return Collected(
        item_ids=np.array([items[row].item_id for row in sound], np.int64),
        embeddings=np.stack([np.asarray(values[row], np.float32) for row in sound]),
        first_tags=[next(iter(items[row].tags), "") for row in sound],
        skipped=len(items) - len(sound),
    )


def _saved(folder: Folder, item_ids: NDArray[np.int64], made: Fit, settings: FitSettings) -> Codebook:
    """The codebook under the next version, or the newest one where it is the same."""
    known = codebooks.versions(folder)
    fresh = Codebook(
        version=known[-1] + 1 if known else 1,
        centroids=made.centroids,
        item_ids=item_ids,
        codes=made.codes,
        settings=settings.as_dict(),
    )
    if known:
        try:
            newest = codebooks.load(folder)
        except OneRecError as error:
            LOG.warning("the newest codebook is left alone: %s", error)
        else:
            if newest.sha256() == fresh.sha256():
                LOG.info("codebook %d is the same already; nothing saved", newest.version)
                return newest
    codebooks.save(folder, fresh)
    LOG.info("codebook %d saved: %d items, %d levels of %d", fresh.version, len(item_ids), fresh.levels, fresh.size)
    return fresh
