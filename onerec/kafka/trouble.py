"""What librdkafka reports on the side, and its errors as sentences with a remedy.

A wrong password or a broker that went away reaches a client through `error_cb` alone; without one it looks like a
quiet topic.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from onerec.errors import DependencyMissingError, SettingsError
from onerec.settings import KafkaSettings

LOG = logging.getLogger(__name__)
PROBE_TIMEOUT_S = 5.0
GLANCE_EVERY_S, GLANCE_TIMEOUT_S = 2.0, 0.5
"""How often a broker that was down is looked for, and for how long: it may come back and go again between."""
REPEAT_S = 10.0

LOGIN = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
NO_RIGHT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
}
"""And what the right that is missing is on."""
DENIED = LOGIN | {KafkaError._SSL} | NO_RIGHT.keys()
NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
NO_BROKER = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT})


def is_fatal(error: KafkaError) -> bool:
    """Whether the client can do nothing any more: a consumer tells that as a message, of which `fatal` is false."""
    return error.fatal() or error.code() == KafkaError._FATAL


class Trouble:
    """A client's `error_cb`: logs what it is told and remembers what a person must mend."""

    def __init__(self, kafka: KafkaSettings, *, level: int = logging.WARNING) -> None:
        """`level` is that of the log lines; the same error is logged every ten seconds at most."""
        self._kafka = kafka
        self._level = level
        self._logged_s: dict[int, float] = {}
        self._denied: KafkaError | None = None
        self._was_alive = False
        self._down_since_s: float | None = None
        self._glance_s = 0.0
        self._connection: str | None = None

    def __call__(self, error: KafkaError) -> None:
        """Called by librdkafka from poll, consume and flush.

        A login that is refused at first is refused for good; one that has worked may fail while a broker restarts.
        """
        self._log(error)
        if error.code() == KafkaError._TRANSPORT:
            self._connection = error.str()
        if is_fatal(error) or (error.code() in DENIED and not self._was_alive):
            self._denied = error
        elif (error.code() in DENIED or error.code() == KafkaError._ALL_BROKERS_DOWN) and self._down_since_s is None:
            self._down_since_s = time.monotonic()
            self._glance_s = self._down_since_s + GLANCE_EVERY_S

    def _log(self, error: KafkaError) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get(error.code(), -REPEAT_S) >= REPEAT_S:
            self._logged_s[error.code()] = now_s
            LOG.log(self._level, "kafka %s: %s", self._kafka.bootstrap_servers, error.str())

    @property
    def connection(self) -> str | None:
        """What librdkafka said of the last connection that failed: that the port may speak TLS, for example."""
        return self._connection

    def seen_alive(self) -> None:
        """A broker has answered."""
        self._was_alive = True
        self._connection = None
        self._down_since_s = None

    def check(self, probe: Callable[[float], object], patience_s: float) -> None:
        """Raise DependencyMissingError where access is denied or no broker has answered for `patience_s`.

        librdkafka says when the last broker goes but not when one comes back, so the `probe` asks (any call that needs
        a broker, given its timeout in seconds): shortly now and then, and for the last time after `patience_s`.
        """
        self.raise_denied()
        if self._down_since_s is None:
            return
        last = self.down_s() >= patience_s
        if not last and time.monotonic() < self._glance_s:
            return
        try:
            probe(PROBE_TIMEOUT_S if last else GLANCE_TIMEOUT_S)
        except KafkaException as error:
            self.raise_denied()
            self._glance_s = time.monotonic() + GLANCE_EVERY_S
            if last:
                raise no_broker(self._kafka, f"none for {patience_s:g} s ({error.args[0].str()})") from error
        else:
            self.seen_alive()

    def down_s(self) -> float:
        """For how long no broker has answered, in seconds, as far as is known; 0 where one does."""
        return 0.0 if self._down_since_s is None else time.monotonic() - self._down_since_s

    def raise_denied(self) -> None:
        """Raise DependencyMissingError where the broker refused this client for good."""
        if self._denied is not None:
            raise explained(KafkaException(self._denied), self._kafka)


def explained(
    error: KafkaException, kafka: KafkaSettings, what: str = "", *, operation: str = ""
) -> DependencyMissingError:
    """The error as a sentence with its remedy; `what` names the topic or group, `operation` what it was to be for."""
    cause = error.args[0]
    about = f" ({what})" if what else ""
    if cause.code() in NO_TOPIC:
        return no_topic(kafka, what or cause.str())
    if cause.code() in DENIED:
        return _denied(cause, kafka, " on ".join(word for word in (operation, what) if word))
    if cause.code() in NO_BROKER:
        return no_broker(kafka, cause.str())
    return DependencyMissingError(
        f"Kafka at {kafka.bootstrap_servers} failed{about}: {cause.str()}.", "See the broker's log, then start again."
    )


def _denied(cause: KafkaError, kafka: KafkaSettings, what: str) -> DependencyMissingError:
    about, text = f" ({what})" if what else "", cause.str().rstrip(".")
    problem = f"The broker {kafka.bootstrap_servers} denies access to {user_of(kafka)}{about}: {text}."
    if cause.code() in LOGIN:
        remedy = "Mend sasl.username and sasl.mechanism of kafka.librdkafka and kafka.sasl_password, or the user there."
    elif cause.code() == KafkaError._SSL:
        remedy = "Mend ssl.ca.location of kafka.librdkafka: the certificate of the broker, or of who has signed it."
    else:
        remedy = f"Grant it on the {NO_RIGHT[cause.code()]}: `onerec topics rights` prints what each service needs."
    return DependencyMissingError(problem, remedy)


def user_of(kafka: KafkaSettings) -> str:
    """Who we are to the broker, for sentences."""
    name = kafka.librdkafka.get("sasl.username")
    return f"user {name}" if name else "this user"


@contextmanager
def known_properties() -> Iterator[None]:
    """Turns librdkafka's refusal of a property into a SettingsError."""
    try:
        yield
    except KafkaException as error:
        raise SettingsError(
            f"librdkafka does not take its properties: {error.args[0].str()}.", "Mend kafka.librdkafka."
        ) from error


def no_broker(kafka: KafkaSettings, detail: str) -> DependencyMissingError:
    """The sentence for a broker that does not answer."""
    return DependencyMissingError(
        f"No Kafka broker answers at {kafka.bootstrap_servers}: {detail}.",
        "Start one, or set kafka.bootstrap_servers (ONEREC_KAFKA__BOOTSTRAP_SERVERS).",
    )


def no_topic(kafka: KafkaSettings, names: str) -> DependencyMissingError:
    """The sentence for topics that are missing."""
    return DependencyMissingError(
        f"Missing on the broker {kafka.bootstrap_servers}, or hidden from this user: {names}.",
        "Run `onerec topics create`, and `onerec topics check` to see what differs.",
    )
