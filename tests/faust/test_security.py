"""librdkafka's security properties reach Faust's client."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from faust.auth import SASLCredentials, SSLCredentials
from pydantic import SecretStr

from onerec.errors import SettingsError
from onerec.faust_security import credentials
from onerec.settings import KafkaSettings


def found(password: str | None = None, **properties: str) -> object:
    named = {name.replace("_", "."): value for name, value in properties.items()}
    return credentials(KafkaSettings(librdkafka=named, sasl_password=SecretStr(password) if password else None))


def test_plaintext_needs_none() -> None:
    assert found() is None
    assert found(security_protocol="PLAINTEXT") is None


def test_sasl() -> None:
    scram = found("s3cret", security_protocol="sasl_plaintext", sasl_mechanism="SCRAM-SHA-512", sasl_username="me")
    assert isinstance(scram, SASLCredentials)
    assert (scram.username, scram.password, scram.mechanism.value) == ("me", "s3cret", "SCRAM-SHA-512")
    assert scram.ssl_context is None
    assert "s3cret" not in repr(scram)


def test_tls() -> None:
    plain = found(security_protocol="ssl", ssl_endpoint_identification_algorithm="none")
    assert isinstance(plain, SSLCredentials)
    assert plain.context.verify_mode is ssl.CERT_REQUIRED
    assert not plain.context.check_hostname
    both = found("x", security_protocol="SASL_SSL", sasl_username="me")
    assert isinstance(both, SASLCredentials)
    assert both.ssl_context is not None
    assert both.ssl_context.check_hostname


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="GSSAPI"):
        found(security_protocol="sasl_plaintext", sasl_mechanism="GSSAPI")
    with pytest.raises(SettingsError, match="cannot use NONSENSE"):
        found(security_protocol="nonsense")
    with pytest.raises(SettingsError, match="ssl files cannot be read"):
        found(security_protocol="ssl", ssl_ca_location=str(tmp_path / "none.pem"))
