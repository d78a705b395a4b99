"""The codebook of the log that ships with the project, and the choice that was made on it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from onerec.model.presets import preset
from onerec.settings import StoredCodes
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Items
from stream.tokenizer.codebook import Codebook
from stream.tokenizer.fit import FitSettings, fit
from stream.tokenizer.report import Report, describe


@pytest.fixture(scope="module")
def catalogue() -> Items:
    return KuaiRand().items()


def report_of(catalogue: Items, stored: StoredCodes) -> Report:
    sizes = preset("small")
    settings = FitSettings(levels=sizes.levels, codes=sizes.codes, stored=stored)
    started = time.process_time()
    made = fit(catalogue.embeddings, settings)
    spent_s = time.process_time() - started
    book = Codebook(
        version=1, centroids=made.centroids, item_ids=catalogue.item_ids, codes=made.codes, settings=settings.as_dict()
    )
    tags = [next(iter(row), "") for row in catalogue.tags]
    return describe(book, made, catalogue.embeddings, tags, fit_s=spent_s, skipped=0)


def test_the_catalogue_is_published_most_seen_first(catalogue: Items) -> None:
    histories = KuaiRand().histories(1_000_000)
    seen = np.bincount(histories.items, minlength=7583)[catalogue.item_ids]
    assert (np.diff(seen) <= 0).all()
    assert catalogue.embeddings.shape == (7583, preset("small").embedding_dim)
    assert sorted(catalogue.item_ids.tolist()) == list(range(7583))


@pytest.mark.slow
def test_nearest_codes_are_better_than_balanced_ones_and_almost_as_even(catalogue: Items) -> None:
    nearest, balanced = (report_of(catalogue, stored) for stored in StoredCodes)
    assert nearest.fit_s < 12.0  # 2 s on an idle core
    assert nearest.error_after < 0.85 * balanced.error_after
    assert nearest.moved_items < 0.7 * balanced.moved_items
    for ours, theirs in zip(nearest.by_level, balanced.by_level, strict=True):
        assert ours.entropy > 0.975
        assert ours.codes_used > 0.98
        if theirs.sharing_after:
            assert ours.same_tag is not None
            assert theirs.same_tag is not None
            assert ours.same_tag > theirs.same_tag
    assert balanced.by_level[0].entropy > 0.9999
    assert balanced.by_level[0].largest - balanced.by_level[0].smallest <= 1
