"""Settings of evaluation/."""

from __future__ import annotations

from pydantic import Field

from onerec.settings.table import Table


class EvaluationSettings(Table):
    """The prequential evaluation and its baselines by visit."""

    visit_gap_ms: int = Field(1_800_000, ge=1, description="A visit ends when so much event time passes.")
    min_history: int = Field(3, ge=0, description="Headline figures are of users with so many earlier exposures.")
    popularity_half_life_ms: int = Field(21_600_000, ge=1, description="Counts of decayed popularity halve in this.")
    cooccurrence_last: int = Field(
        50, ge=1, description="A user's newest exposures, from which co-occurrence predicts."
    )
    cooccurrence_weight: float = Field(
        5.0, gt=0, description="A pair of exposures in the stream counts so many times one of the histories."
    )
