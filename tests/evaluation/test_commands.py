"""What commands of `python -m evaluation` say of arguments that they cannot take, before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from evaluation.__main__ import app
from evaluation.streaming.protocol import FULL, QUICK, Recipe


@pytest.mark.parametrize("command", ["table1", "streaming", "beauty", "ab"])
def test_seeds_that_are_no_numbers_are_refused_with_what_would_do(command: str) -> None:
    ended = CliRunner().invoke(app, [command, "--quick", "--seeds", "1;2"])
    assert ended.exit_code == 2
    assert "as 1,2,3" in ended.output
    assert "'1;2'" in ended.output


@pytest.mark.parametrize(
    ("arguments", "known"),
    [(["table1", "--rows", "sasrek"], "sasrec-softmax"), (["figures", "--only", "7"], "4, 5, 6")],
)
def test_a_row_or_figure_that_is_not_there_is_refused_with_those_that_are(arguments: list[str], known: str) -> None:
    ended = CliRunner().invoke(app, [*arguments, "--quick"])
    assert ended.exit_code == 2
    assert known in ended.output


def test_a_comparison_of_recipes_takes_no_frequency_power() -> None:
    ended = CliRunner().invoke(app, ["streaming", "--quick", "--choose", "--frequency-power", "1"])
    assert ended.exit_code == 2
    assert "Leave --frequency-power out" in ended.output


@pytest.mark.parametrize("other", ["--published", "--choose"])
def test_quick_figures_do_not_stand_for_published_ones(other: str) -> None:
    ended = CliRunner().invoke(app, ["beauty", "--quick", other])
    assert ended.exit_code == 2
    assert f"Leave out --quick or {other}" in ended.output


def test_results_of_other_forms_have_files_of_their_own() -> None:
    weighed = [replace(form, recipe=Recipe(frequency_power=0.5)) for form in (FULL, QUICK)]
    assert [form.suffix for form in (FULL, QUICK, *weighed)] == ["", "-quick", "-frequency-0.5", "-quick-frequency-0.5"]
