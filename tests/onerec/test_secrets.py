"""Secrets of the settings are in no sentence, line or traceback, wherever a library puts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onerec import secrets
from onerec.cli.config import rows
from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings, load_settings
from onerec.weights.folder import Folder
from schemas.topics import ACTIONS

CANARY = "canary-4711"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_outer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEREC_CONFIG", raising=False)
    monkeypatch.setattr(secrets, "_known", set())


@pytest.mark.parametrize(
    ("uri", "shown", "found"),
    [
        ("runs/store", "runs/store", []),
        ("s3://bucket/a/b", "s3://bucket/a/b", []),
        ("https://me:pa%2Fss@host:1/x", "https://**********@host:1/x", ["pa%2Fss", "pa/ss"]),
        ("ftp://token@host", "ftp://**********@host", ["token"]),
        ("s3://b/p?key=k1&secret=s2#f", "s3://b/p?key=**********&secret=**********#f", ["k1", "s2"]),
        ("cache::ftp://u:pp@h/x?a=b", "cache::ftp://**********@h/x?a=**********", ["pp", "b"]),
    ],
)
def test_secrets_of_uris(uri: str, shown: str, found: list[str]) -> None:
    assert secrets.without_secrets(uri) == shown
    assert set(secrets.secrets_in(uri)) == set(found)


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "sasl.jaas.config",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.client.secret",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "some.future.token",
    ],
)
def test_secret_properties(name: str) -> None:
    assert secrets.is_secret_property(name)


@pytest.mark.parametrize(
    "name", ["security.protocol", "sasl.mechanism", "sasl.username", "ssl.ca.location", "linger.ms"]
)
def test_open_properties(name: str) -> None:
    assert not secrets.is_secret_property(name)


def test_what_was_read_as_a_secret_is_masked_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_KAFKA__SASL_PASSWORD", f"{CANARY}-1")
    monkeypatch.setenv("ONEREC_KAFKA__LIBRDKAFKA", f'{{"ssl.key.password": "{CANARY}-2", "client.id": "me"}}')
    monkeypatch.setenv("ONEREC_KAFKA__SCHEMA_REGISTRY_URL", f"http://user:{CANARY}-3@127.0.0.1:1")
    monkeypatch.setenv("ONEREC_STORE__URI", f"nowhere://key:{CANARY}-4@bucket/x?secret={CANARY}-5")
    settings = load_settings()
    assert CANARY not in repr(settings)
    assert CANARY not in str(list(rows(settings)))
    for number in range(1, 6):
        assert CANARY not in str(CheckFailedError(f"A library said {CANARY}-{number}.", "Mend it."))
    with pytest.raises(DependencyMissingError) as registry:
        codec(settings.kafka, ACTIONS).decode(b"\x00\x00\x00\x00\x01rest")
    with pytest.raises(SettingsError, match="cannot be opened") as store:
        Folder(settings.store.uri)
    assert CANARY not in f"{registry.value} {store.value}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ONEREC_KAFKA__LIBRDKAFKA", f"not JSON {CANARY}"),
        ("ONEREC_KAFKA__LIBRDKAFKA", f'["{CANARY}"]'),
        ("ONEREC_KAFKA__PARTITIONS", CANARY),
    ],
)
def test_wrong_values_are_not_repeated(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=r"kafka") as raised:
        load_settings()
    assert CANARY not in f"{raised.value} {raised.value.__cause__!r} {raised.value.__cause__}"


def test_tracebacks_and_log_lines_of_a_process_are_masked() -> None:
    program = (
        "import logging, threading\n"
        "from onerec.service import configure_logging\n"
        "from onerec.settings import load_settings\n"
        "password = load_settings().kafka.sasl_password.get_secret_value()\n"
        "configure_logging('test')\n"
        "logging.getLogger('library').error('it is %s', password)\n"
        "def fails(): raise ValueError(password)\n"
        "try: fails()\n"
        "except ValueError: logging.exception('caught')\n"
        "thread = threading.Thread(target=fails); thread.start(); thread.join()\n"
        "fails()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"ONEREC_KAFKA__SASL_PASSWORD": CANARY, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert CANARY not in done.stdout + done.stderr
    assert done.stderr.count(f"ValueError: {secrets.HIDDEN}") == 3
    assert f"it is {secrets.HIDDEN}" in done.stderr


def test_short_values_are_not_searched_for() -> None:
    secrets.remember(["", "a", "ab"])
    assert secrets.masked("a bad tab") == "a bad tab"


def test_properties_are_not_in_the_representation() -> None:
    assert CANARY not in repr(KafkaSettings(librdkafka={"sasl.password": CANARY}, schema_registry_url=CANARY))
