"""librdkafka's security properties as Faust credentials, so that one setting secures every client."""

from __future__ import annotations

import ssl
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials

from onerec.errors import SettingsError
from onerec.settings import KafkaSettings

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def credentials(kafka: KafkaSettings) -> Any | None:
    """Credentials for `security.protocol`, `ssl.*.location` and `sasl.*`; None for plaintext.

    Raises SettingsError for a protocol or mechanism that Faust's client does not speak.
    """
    properties = kafka.librdkafka
    protocol = properties.get("security.protocol", "plaintext").upper()
    if protocol == "PLAINTEXT":
        return None
    context = _context(properties) if protocol in {"SSL", "SASL_SSL"} else None
    if protocol == "SSL":
        return SSLCredentials(context=context)
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "PLAIN")).upper()
    if protocol not in {"SASL_PLAINTEXT", "SASL_SSL"} or mechanism not in _MECHANISMS:
        raise SettingsError(
            f"kafka.librdkafka: tokenizer and sampler cannot use {protocol} with {mechanism}.",
            f"Use SSL, SASL_PLAINTEXT or SASL_SSL, and one of {', '.join(_MECHANISMS)}.",
        )
    secret = kafka.sasl_password.get_secret_value() if kafka.sasl_password else properties.get("sasl.password")
    return SASLCredentials(
        username=properties.get("sasl.username"), password=secret, ssl_context=context, mechanism=mechanism
    )


def _context(properties: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=properties.get("ssl.ca.location"))
        if certificate := properties.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, properties.get("ssl.key.location"), properties.get("ssl.key.password"))
    except OSError as error:
        raise SettingsError(f"kafka.librdkafka: ssl files cannot be read: {error}.", "Mend ssl.*.location.") from error
    if properties.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    return context
