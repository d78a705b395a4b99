"""The settings of a demo's services."""

from __future__ import annotations

from pathlib import Path

import pytest

from onerec.demo.loop import Options, configuration
from onerec.settings import load_settings


@pytest.mark.parametrize(("simulate", "power"), [(False, 0.0), (True, 1.0)])
def test_a_loop_of_simulated_users_is_kept_from_narrowing(tmp_path: Path, simulate: bool, power: float) -> None:
    file = tmp_path / "onerec.toml"
    file.write_text(configuration(Options(tmp_path, 100, 5.0, "tiny", None, simulate=simulate), "127.0.0.1:9"))
    settings = load_settings(file)
    assert settings.trainer.frequency_power == power
    assert settings.trainer.seed.budget_s == 5.0
