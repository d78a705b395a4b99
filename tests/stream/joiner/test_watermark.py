"""Event time over two inputs."""

from __future__ import annotations

from stream.joiner.join import BEGINNING_MS
from stream.joiner.watermark import ACTIONS, IMPRESSIONS, Watermark


def test_the_older_input_decides_less_the_lateness() -> None:
    watermark = Watermark([500, 300])

    assert watermark.advance(20) == 280


def test_nothing_has_passed_before_both_inputs_have_spoken() -> None:
    watermark = Watermark()
    watermark.newest_ms[IMPRESSIONS] = 500

    assert watermark.advance(0) == BEGINNING_MS
    assert watermark.advance(0, idle=[ACTIONS]) == 500


def test_it_never_goes_back() -> None:
    watermark = Watermark([500, 300])
    watermark.advance(0, idle=[ACTIONS])

    assert watermark.advance(0) == 500


def test_standing_still_passes_the_window_of_everything_that_came() -> None:
    assert Watermark([500, 300]).pass_everything(15) == 515
    assert Watermark().pass_everything(15) == BEGINNING_MS
