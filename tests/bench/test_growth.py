"""Growth curves: fitted exponents are those of the costs, and the table says them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.growth.__main__ import app
from bench.growth.curves import CURVES
from bench.growth.document import filled
from bench.growth.fit import fit


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_a_power_has_its_exponent(exponent: float) -> None:
    sizes = [8, 16, 32, 64]
    found = fit(sizes, [3.0 * size**exponent for size in sizes])
    assert found.mean == pytest.approx(exponent)
    assert found.last == pytest.approx(exponent)


def test_fixed_costs_weigh_less_in_the_upper_half() -> None:
    sizes = [1, 4, 16, 64, 256, 1024]
    found = fit(sizes, [50.0 + size for size in sizes])
    assert found.mean < found.last < 1.0


def test_costs_without_a_curve_are_refused() -> None:
    with pytest.raises(ValueError, match="no curve"):
        fit([1], [1.0])
    with pytest.raises(ValueError, match="above 0"):
        fit([1, 2], [0.0, 1.0])


def test_the_sizes_are_those_that_are_asked_for() -> None:
    ends = {curve.name: (curve.sizes[0], curve.sizes[-1]) for curve in CURVES}
    assert ends["history"] == (16, 1024)
    assert ends["beam"] == (8, 1024)
    assert ends["experts"] == (4, 64)
    assert set(ends) == {"history", "beam", "session", "experts", "batch", "catalogue"}


def test_the_command_writes_curve_and_picture(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["session", "--brief", "--out", str(tmp_path)])
    assert done.exit_code in {0, 4}, done.output  # 4: a busy machine may bend the curve
    told = json.loads((tmp_path / "growth.json").read_text())
    assert [curve["name"] for curve in told["curves"]] == ["session"]
    assert f"exponent {told['curves'][0]['exponent']:.2f}" in done.output
    assert (tmp_path / "growth.png").stat().st_size > 1000
    page = filled("before\n<!-- growth: x -->\nold\n<!-- /growth -->\nafter\n", told)
    assert "| session (items) |" in page
    assert "old" not in page


def test_an_unknown_curve_is_named() -> None:
    done = CliRunner().invoke(app, ["colour"])
    assert done.exit_code == 2
