"""`onerec versions` against a real store and broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onerec.cli.app import app
from onerec.kafka import metadata
from onerec.settings import KafkaSettings, Settings
from onerec.weights.directives import read_choice
from tests.inference.publishing import Publisher, constant_weights, settings_of

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = settings_of(kafka, tmp_path)
    for name in ("bootstrap_servers", "topic_prefix", "group_prefix"):
        monkeypatch.setenv(f"ONEREC_KAFKA__{name.upper()}", getattr(kafka, name))
    monkeypatch.setenv("ONEREC_STORE__URI", settings.store.uri)
    monkeypatch.setenv("ONEREC_MODEL__PRESET", "tiny")
    publisher = Publisher(settings)
    for version in (1, 2, 3):
        publisher.publish(version, constant_weights(version))
    return settings


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["versions", *arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def listed() -> dict[str, Any]:
    code, out, _ = run("list", "--json")
    assert code == 0
    return {"serving": json.loads(out)["serving"], **{str(row["version"]): row for row in json.loads(out)["versions"]}}


def test_list_pin_rollback_and_unpin(settings: Settings) -> None:
    before = listed()
    assert before["serving"] == 3
    assert [before[version]["kind"] for version in "123"] == ["full", "delta", "delta"]
    assert before["3"]["serving"] == "newest"
    assert run("pin", "1")[0] == 0
    assert read_choice(settings).pinned == 1
    assert (listed()["serving"], listed()["1"]["serving"]) == (1, "pinned")
    assert run("rollback", "2")[0] == 0
    assert (listed()["serving"], listed()["2"]["serving"]) == (2, "rolled back")
    code, out, _ = run("unpin")
    assert (code, out) == (0, "unpinned; version 3 is served\n")
    assert listed()["serving"] == 3
    code, _, err = run("unpin")
    assert code == 2
    assert "Nothing is pinned" in err


def test_show_and_the_table(settings: Settings) -> None:
    code, out, _ = run("show", "2", "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["version"], shown["parent"], shown["step"], shown["preset"]) == (2, 1, 20, "tiny")
    assert "sha256" in run("show", "2")[1]
    code, out, _ = run("list", "--limit", "2")
    assert code == 0
    assert "newest" in out
    assert len([line for line in out.splitlines() if "delta" in line]) == 2


@pytest.mark.parametrize("command", ["show", "pin", "rollback"])
def test_an_unknown_version_is_a_clear_error(settings: Settings, command: str) -> None:
    code, _, err = run(command, "99")
    assert code == 2
    assert "no versions/00000099" in err
    assert read_choice(settings).directive is None


def test_a_damaged_manifest_is_told_and_the_rest_is_listed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "store/versions/00000002/manifest.json").write_text("{")
    code, out, _ = run("list")
    assert code == 0
    assert "manifest of version 2 is torn" in out
    assert "newest" in out
    assert run("pin", "2")[0] == 4


def test_without_a_store_or_topics_it_says_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEREC_KAFKA__TOPIC_PREFIX", "nowhere-")
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    code, out, _ = run("list")
    assert code == 0
    assert "What is served is not known" in out
    assert run("unpin")[0] == 3
    monkeypatch.setenv("ONEREC_STORE__URI", str(tmp_path / "none"))
    code, _, err = run("show", "1")
    assert code == 3
    assert "is not there" in err
