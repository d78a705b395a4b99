"""Fitting a codebook and measuring it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from onerec.errors import SettingsError
from onerec.settings import StoredCodes
from stream.tokenizer.codebook import Codebook
from stream.tokenizer.fit import FitSettings, fit, unique_codes
from stream.tokenizer.report import describe
from stream.tokenizer.report_table import print_report
from tests.stream.tokenizer.items import embeddings


def test_all_items_get_different_ids_and_the_earlier_decide() -> None:
    points = embeddings(200)
    made = fit(points, FitSettings(levels=3, codes=8))
    assert len(np.unique(made.codes, axis=0)) == 200
    assert len(np.unique(made.wanted, axis=0)) < 200
    given = [tuple(codes) for codes in made.codes.tolist()]
    for row, wanted in enumerate(map(tuple, made.wanted.tolist())):
        assert (given[row] == wanted) == (wanted not in given[:row])  # moved only where an earlier one has it
    again = fit(points, FitSettings(levels=3, codes=8))
    np.testing.assert_array_equal(again.codes, made.codes)
    np.testing.assert_array_equal(again.centroids, made.centroids)


def test_what_is_stored_is_a_setting() -> None:
    points = np.random.default_rng(0).standard_normal((160, 4)).astype(np.float32)
    balanced = fit(points, FitSettings(levels=2, codes=16, stored=StoredCodes.BALANCED))
    assert np.bincount(balanced.wanted[:, 0], minlength=16).tolist() == [10] * 16
    nearest = fit(points, FitSettings(levels=2, codes=16))
    gaps = np.square(points[:, None] - nearest.centroids[0]).sum(axis=2)
    np.testing.assert_array_equal(nearest.wanted[:, 0], gaps.argmin(axis=1))
    assert np.ptp(np.bincount(nearest.wanted[:, 0], minlength=16)) > 0


def test_refuses_more_items_than_ids() -> None:
    points = embeddings(9)
    full = fit(points[:8], FitSettings(levels=3, codes=2))
    assert len(np.unique(full.codes, axis=0)) == 8
    with pytest.raises(SettingsError, match=r"2\^3 = 8 ids does not fit 9 items"):
        fit(points, FitSettings(levels=3, codes=2))


def test_the_report_says_what_is_there() -> None:
    centroids = np.zeros((2, 2, 1), np.float32)
    centroids[0, :, 0], centroids[1, :, 0] = (-10.0, 10.0), (-1.0, 1.0)
    points = np.array([[-11.0], [-11.0], [-9.0], [11.0]], np.float32)
    wanted = np.array([[0, 0], [0, 0], [0, 1], [1, 1]], np.int32)
    codes = unique_codes(points, centroids, wanted)
    assert codes.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]  # the second took the third's id, which spilled to s1 = 1
    made = fit(points, FitSettings(levels=2, codes=2))
    made = type(made)(centroids=centroids, wanted=wanted, codes=codes, sweeps=(3, 4), moved=(0, 1))
    book = Codebook(version=7, centroids=centroids, item_ids=np.arange(4), codes=codes, settings={"stored": "argmin"})
    report = describe(book, made, points, ["x", "x", "y", ""], fit_s=1.0, skipped=2)
    first, second = report.by_level
    assert (report.version, report.items, report.moved_items, report.moved_by_level) == (7, 4, 2, (1, 1))
    assert report.error_before == 0.0
    assert report.error_after > 0.0
    assert (first.prefixes, first.sharing_before, first.sharing_after) == (2, 3, 4)
    assert (second.prefixes, second.sharing_before, second.sharing_after) == (4, 2, 0)
    assert (first.entropy, first.codes_used, first.largest) == (1.0, 1.0, 2)
    assert first.same_tag == 0.5  # x x | y ""
    out = io.StringIO()
    print_report(report, Console(file=out, width=100))
    assert "Codebook 7" in out.getvalue()
    assert "2 items (50.0%) wanted an id in use" in out.getvalue()
    assert report.as_dict()["by_level"][1]["unsettled"] == 1
