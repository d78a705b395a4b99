"""What keeps a client from logging in is one sentence each, and no hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from onerec.errors import DependencyMissingError, OneRecError, SettingsError
from onerec.faust_security import credentials
from onerec.kafka import admin, clients
from onerec.settings import KafkaSettings
from tests.security.secured import SecuredKafka

pytestmark = pytest.mark.broker


def refusal(kafka: KafkaSettings, patience_s: float = 60.0) -> OneRecError:
    with pytest.raises(OneRecError) as raised:
        admin.wait_for_broker(kafka, patience_s)
    return raised.value


def test_who_knows_the_password_and_trusts_the_certificate_gets_in(secured: SecuredKafka) -> None:
    without_a_login = KafkaSettings(bootstrap_servers=secured.bootstrap_servers)
    assert admin.cluster_id(secured.settings("worker")) == admin.cluster_id(without_a_login)


@pytest.mark.parametrize(("user", "password"), [("worker", "wrong-password"), ("stranger", "any-password")])
def test_a_wrong_password_and_an_unknown_user(secured: SecuredKafka, user: str, password: str) -> None:
    error = refusal(secured.settings(user, password=password))
    assert isinstance(error, DependencyMissingError)
    assert f"denies access to user {user}" in error.problem
    assert "sasl_password" in error.remedy
    assert password not in str(error)


def test_a_certificate_that_is_not_trusted(secured: SecuredKafka) -> None:
    error = refusal(secured.settings("worker", ssl_ca_location=str(secured.stranger.certificate)))
    assert isinstance(error, DependencyMissingError)
    assert "certificate verify failed" in error.problem
    assert "ssl.ca.location" in error.remedy


def test_plain_to_a_tls_port(secured: SecuredKafka) -> None:
    kafka = KafkaSettings(bootstrap_servers=secured.tls_servers)
    said = "asks for TLS or a login needs security.protocol in kafka.librdkafka"
    assert said in refused_in_the_end(kafka, said)


def refused_in_the_end(kafka: KafkaSettings, said: str) -> str:
    """The refusal, if there is one that says so: a busy machine may not have tried to connect in a short time."""
    for patience_s in (2.0, 10.0, 30.0):
        error = refusal(kafka, patience_s)
        assert isinstance(error, DependencyMissingError)
        if said in error.problem:
            break
    return error.problem


def test_tls_to_a_plain_port(secured: SecuredKafka) -> None:
    kafka = secured.settings("worker").model_copy(update={"bootstrap_servers": secured.bootstrap_servers})
    assert "SSL handshake failed" in refused_in_the_end(kafka, "SSL handshake failed")


def test_properties_that_are_none(tmp_path: Path) -> None:
    absent = {"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "none.pem")}
    for properties in (absent, {"no.such.property": "1"}):
        kafka = KafkaSettings(librdkafka=properties)
        for make in (clients.consumer, clients.producer, admin.WatchedAdmin):
            with pytest.raises(SettingsError, match=r"librdkafka does not take .*kafka\.librdkafka"):
                make(kafka)
    with pytest.raises(SettingsError, match="ssl files cannot be read"):
        credentials(KafkaSettings(librdkafka=absent))
