"""Secrets of the settings: which they are, and text without them.

Two lines of defence. What shows settings (`onerec config`, sentences about a store) leaves secrets out by their
names and places. And whatever value was read as a secret is replaced in every sentence, log line and traceback that
this process prints, wherever a library has put it.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from urllib.parse import unquote

HIDDEN = "**********"
MIN_LENGTH = 4
"""Shorter values are not searched for: they would blank out half of every log, and protect nothing."""
_WORDS = ("password", "secret", "token", "credential", "key", "jaas", "assertion", "private")
_OPEN = frozenset(
    {
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.kerberos.service.name",
        "sasl.kerberos.principal",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope",
        "ssl.cipher.suites",
        "ssl.curves.list",
        "ssl.sigalgs.list",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
    }
)
_USERINFO = re.compile(r"(?<=://)([^/?#@\s]+)@")
_QUERY_VALUE = re.compile(r"([?&][^=&#\s]+=)([^&#\s]+)")
_known: set[str] = set()


def is_secret_property(name: str) -> bool:
    """Whether a property of librdkafka may hold a secret: all of `sasl.` and `ssl.` but what is known to be none."""
    lower = name.lower()
    if lower in _OPEN or lower.endswith(".location"):
        return False
    return lower.startswith(("sasl.", "ssl.")) or any(word in lower for word in _WORDS)


def without_secrets(uri: str) -> str:
    """A URI whose userinfo and values of the query are hidden."""
    return _QUERY_VALUE.sub(rf"\1{HIDDEN}", _USERINFO.sub(f"{HIDDEN}@", uri))


def secrets_in(uri: str) -> list[str]:
    """Password, or the whole userinfo where it has no colon, and the query's values, as written and decoded."""
    found = [match[1].partition(":")[2] or match[1] for match in _USERINFO.finditer(uri)]
    found += [match[2] for match in _QUERY_VALUE.finditer(uri)]
    return [*found, *map(unquote, found)]


def remember(secrets: Iterable[str]) -> None:
    """Leave these values out of all that `masked` sees from now on."""
    _known.update(secret for secret in secrets if len(secret) >= MIN_LENGTH)


def masked(text: str) -> str:
    """The text without any value that is known to be a secret."""
    for secret in sorted(_known, key=len, reverse=True):  # a secret may be part of another
        text = text.replace(secret, HIDDEN)
    return text


class MaskingFormatter(logging.Formatter):
    """Log lines, tracebacks among them, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return masked(super().format(record))


def masking_handler(form: str) -> logging.Handler:
    """A handler to stderr whose lines of this form hold no secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter(form))
    return handler


def mask_tracebacks() -> None:
    """Whatever ends this process or a thread of it by an exception leaves a traceback without secrets on stderr."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
            hook(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    sys.excepthook = hook
    threading.excepthook = in_thread
