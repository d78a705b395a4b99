"""Whether this user has the rights of its service: asked once at the start, so that a missing one has a name.

Without it a right that is missing shows when it is first needed, which may be hours later: to write dead letters, say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from onerec.errors import DependencyMissingError
from onerec.kafka.admin import WatchedAdmin
from onerec.kafka.metadata import metadata
from onerec.kafka.rights import Resource, Right, rights
from onerec.kafka.trouble import user_of
from onerec.settings import Settings

LOG = logging.getLogger(__name__)
TIMEOUT_S = 20.0
DENIED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


def require_rights(settings: Settings, user: str) -> None:
    """Return where the broker grants what table `onerec.kafka.rights` says that `user` needs.

    Raises DependencyMissingError for no broker or login, and one that names all rights that are missing. Asks nothing
    where nobody logs in; what the broker does not tell is left to the moment when it is needed, transactional ids
    among it.
    """
    protocol = settings.kafka.librdkafka.get("security.protocol", "plaintext").upper()
    if protocol == "PLAINTEXT":
        return
    client = WatchedAdmin(settings.kafka)
    metadata(client, settings.kafka)  # whoever cannot log in is told so, not which rights are missing
    missing = missing_rights(client, rights(settings, [user]))
    if missing:
        raise DependencyMissingError(
            f"The broker {settings.kafka.bootstrap_servers} denies {user_of(settings.kafka)} what the {user} needs: "
            f"{'; '.join(map(str, missing))}.",
            f"Grant it: `onerec topics rights --user {user} --commands` prints how.",
        )


def missing_rights(client: WatchedAdmin, needed: Iterable[Right]) -> list[Right]:
    """Those of the `needed` rights that the broker does not grant the client's user, as far as it tells."""
    of: dict[Resource, list[Right]] = {resource: [] for resource in Resource}
    for right in needed:
        of[right.resource].append(right)
    return [*_missing_topics(client, of[Resource.TOPIC]), *_missing_groups(client, of[Resource.GROUP])]


def _missing_topics(client: WatchedAdmin, needed: Iterable[Right]) -> Iterator[Right]:
    by_name = {right.name: right for right in needed}
    asked = client.describe_topics(
        TopicCollection(list(by_name)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    for name, right in by_name.items():
        try:
            told = asked[name].result(TIMEOUT_S).authorized_operations
        except KafkaException as error:
            if error.args[0].code() in DENIED:
                yield right
            else:
                LOG.debug("rights on topic %s are not told: %s", name, error)
            continue
        if told:
            granted = {operation.name for operation in told}
            absent = tuple(one for one in right.operations if one.name not in granted)
            if absent:
                yield Right(right.user, right.resource, name, absent, right.why)


def _missing_groups(client: WatchedAdmin, needed: Iterable[Right]) -> Iterator[Right]:
    """By the question who is in it: to librdkafka's of its offsets a broker that loads the group yet is a crash."""
    for right in needed:
        try:
            client.describe_consumer_groups([right.name], request_timeout=TIMEOUT_S)[right.name].result(TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() in DENIED:
                yield right
            else:
                LOG.debug("rights on group %s are not told: %s", right.name, error)
