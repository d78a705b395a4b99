"""What `--choose` compares: trainings of the generative rows, one after the other as they were tried.

First the samples and whether they are met by dropout, by older sessions or by overlap; then rates and weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from evaluation.table1.protocol import GenerativeTraining


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one row: onerec-s, onerec-l, tiger-s or tiger-l."""

    row: str
    training: GenerativeTraining


def _of(
    thousands: int, dropout: float, half_lives: tuple[float, float], stride: int | None = None
) -> GenerativeTraining:
    first, last = half_lives
    return GenerativeTraining(
        samples=1000 * thousands, dropout=dropout, half_life=first, final_half_life=last, stride=stride
    )


SEEDS = (2.0, 0.25)
"""The half-lives of the trainer's seed."""
LONGER, LONGEST = (4.0, 1.0), (8.0, 4.0)
_USUAL = _of(200, 0.1, LONGER, 1)
_ONEREC_LARGE = (
    _of(100, 0.0, SEEDS),
    _of(200, 0.0, SEEDS),
    _of(200, 0.1, SEEDS),
    _of(200, 0.1, SEEDS, 1),
    _of(400, 0.1, SEEDS, 1),
    _of(200, 0.1, LONGER),
    _USUAL,
    _of(200, 0.2, LONGER, 1),
    _of(400, 0.2, LONGER, 1),
    _of(200, 0.1, LONGEST, 1),
    replace(_USUAL, learning_rate=1e-3),
    replace(_USUAL, weight_decay=0.1),
)
_ONEREC_SMALL = (
    _of(200, 0.0, SEEDS),
    _of(200, 0.1, SEEDS),
    _of(200, 0.1, SEEDS, 1),
    _of(400, 0.1, SEEDS, 1),
    _of(400, 0.1, LONGER, 1),
)
_TIGER_LARGE = (
    _of(200, 0.0, SEEDS),
    _of(400, 0.1, SEEDS),
    _of(200, 0.1, LONGER),
    _of(400, 0.1, LONGER),
    _of(400, 0.2, LONGER),
    _of(200, 0.1, LONGEST),
)
_TIGER_SMALL = (_of(200, 0.0, SEEDS), _of(400, 0.1, LONGER))
TRIALS = tuple(
    Trial(row, training)
    for row, trainings in (
        ("onerec-s", _ONEREC_SMALL),
        ("onerec-l", _ONEREC_LARGE),
        ("tiger-s", _TIGER_SMALL),
        ("tiger-l", _TIGER_LARGE),
    )
    for training in trainings
)
