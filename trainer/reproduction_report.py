"""A reproduction on the terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from trainer.verdict import Reproduced, Reproduction


def as_json(found: Reproduction) -> dict[str, Any]:
    """Plain values: the whole, and each version."""
    return {
        "identical": found.identical,
        "passed": found.passed,
        "same_environment": found.same_environment,
        "versions": [_row(each) for each in found.versions],
    }


def table(found: Reproduction) -> Table:
    """One row a version."""
    rows = Table("version", "step", "made from", "steps executed", "journal", "announced", "made", "", box=None)
    for each in found.versions:
        sums = (each.expected_sha256, each.announced_sha256 or "gone", each.made_sha256)
        verdict = "identical" if each.identical else "within the bound" if each.passed else "DIFFERENT"
        rows.add_row(
            str(each.version), str(each.step), each.base, str(each.steps), *(sum_[:12] for sum_ in sums), verdict
        )
    return rows


def sentences(found: Reproduction) -> list[str]:
    """What there is to say: of each version that is not identical, and in the end of all."""
    told = [each.sentence() for each in found.versions if not each.identical]
    count = sum(each.identical for each in found.versions)
    return [*told, f"{count} of {len(found.versions)} versions identical, bit for bit."]


def _row(each: Reproduced) -> dict[str, Any]:
    distance = each.distance
    return {
        "version": each.version,
        "step": each.step,
        "base": each.base,
        "steps": each.steps,
        "expected_sha256": each.expected_sha256,
        "announced_sha256": each.announced_sha256,
        "made_sha256": each.made_sha256,
        "identical": each.identical,
        "passed": each.passed,
        "same_environment": each.same_environment,
        "differences": {key: list(pair) for key, pair in each.differences.items()},
        "max_abs_difference": 0.0 if each.made_sha256 == each.expected_sha256 else distance and distance.max_abs,
        "relative_difference": 0.0 if each.made_sha256 == each.expected_sha256 else distance and distance.relative,
        "first_difference": each.first_difference,
        "sentence": each.sentence(),
    }
