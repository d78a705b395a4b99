"""Defaults < file < environment < flags; whoever misspells a key is told which."""

from pathlib import Path

import pytest

from onerec.cli.config import rows
from onerec.errors import ExitCode, SettingsError
from onerec.settings import load_settings


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEREC_CONFIG", raising=False)


def test_each_source_wins_over_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "onerec.toml"
    file.write_text("[trainer]\nlearning_rate = 0.5\nbatch = 7\nclip_norm = 3.0\n")
    monkeypatch.setenv("ONEREC_CONFIG", str(file))
    monkeypatch.setenv("ONEREC_TRAINER__BATCH", "8")
    monkeypatch.setenv("ONEREC_TRAINER__CLIP_NORM", "4")
    trainer = load_settings(trainer={"clip_norm": 5.0}).trainer
    assert (trainer.learning_rate, trainer.batch, trainer.clip_norm) == (0.5, 8, 5.0)
    assert trainer.warmup_steps == load_settings().trainer.warmup_steps


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("ONEREC_TRAINER__LEARNIN_RATE", "1", "trainer.learnin_rate"),
        ("ONEREC_TRAINR__BATCH", "1", "ONEREC_TRAINR__BATCH"),
        ("ONEREC_TRAINER__BATCH", "none", "trainer.batch"),
        ("ONEREC_STREAM__JOINER__SESSION_ITEMS", "0", "stream.joiner.session_items"),
        ("ONEREC_KAFKA__MIN_INSYNC_REPLICAS", "2", "min_insync_replicas cannot be above replication_factor"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=named) as raised:
        load_settings()
    assert raised.value.exit_code == ExitCode.BAD_ARGUMENTS


def test_a_wrong_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "onerec.toml"
    file.write_text("[kafka\n")
    monkeypatch.setenv("ONEREC_CONFIG", str(file))
    with pytest.raises(SettingsError, match=r"onerec\.toml is no TOML"):
        load_settings()
    monkeypatch.setenv("ONEREC_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings()


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"x = " + b"[" * 5000, b"x = " + b"9" * 10_000], ids=lambda text: text[:7]
)
def test_a_file_that_no_parser_takes_is_said_in_a_sentence(
    tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "onerec.toml"
    file.write_bytes(text)
    monkeypatch.setenv("ONEREC_CONFIG", str(file))
    with pytest.raises(SettingsError, match=r"onerec\.toml is no TOML"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("ONEREC_KAFKA__LIBRDKAFKA", '{"ssl.key.password": "hunter3", "client.id": "me"}')
    shown = {key: value for key, value, _ in rows(load_settings())}
    assert "hunter" not in str(shown)
    assert "me" in shown["kafka.librdkafka"]


def test_every_setting_says_what_it_means() -> None:
    unexplained = [key for key, _, meaning in rows(load_settings()) if not meaning]
    assert unexplained == []
