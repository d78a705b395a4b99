"""The joiner's topics: names on this broker, codecs, and what tells one log from another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.patience import ask
from onerec.kafka.registry import codec
from onerec.kafka.trouble import explained
from onerec.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topics import ACTIONS, DEAD_LETTERS, HISTORIES, IMPRESSIONS, JOINER_CHANGELOG, SESSIONS, Topic

LOG = logging.getLogger(__name__)
GROUP = "joiner"
TIMEOUT_S = 10.0
CO_PARTITIONED = (IMPRESSIONS, ACTIONS, SESSIONS, HISTORIES, JOINER_CHANGELOG)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Names and codecs of the topics, and the log's identity."""

    kafka: KafkaSettings
    inputs: tuple[str, str]
    """Names of impressions and actions, in the order of `watermark.INPUTS`."""
    sessions: str
    histories: str
    changelog: str
    dead_letters: str
    impression_codec: Codec
    action_codec: Codec
    session_codec: Codec
    history_codec: Codec
    dead_letter_codec: Codec
    identity: str
    """Cluster and state topics; a local copy of another identity is of another log."""
    cluster_id: str


def wire(kafka: KafkaSettings) -> Wiring:
    """Look at the broker's topics.

    Raises DependencyMissingError for no broker or topic and CheckFailedError where the topics that belong together
    differ in partitions.
    """
    admin = AdminClient(clients.properties(kafka))
    try:
        metadata = ask(lambda: admin.list_topics(timeout=TIMEOUT_S), TIMEOUT_S)
    except KafkaException as error:
        raise explained(error, kafka) from error
    counts: dict[str, int] = {}
    for topic in (*CO_PARTITIONED, DEAD_LETTERS):
        name = clients.topic_name(kafka, topic)
        if name not in metadata.topics:
            raise DependencyMissingError(f"Topic {name} is missing.", "Run `onerec topics create`.")
        if topic in CO_PARTITIONED:
            counts[name] = len(metadata.topics[name].partitions)
    if len(set(counts.values())) > 1:
        raise CheckFailedError(
            f"Topics of one user must have the same number of partitions, but they have {counts}.",
            "`onerec topics check` says what the settings want; make the topics anew with it.",
        )
    return names(kafka, str(metadata.cluster_id), _topic_ids(admin, kafka, (JOINER_CHANGELOG, HISTORIES)))


def names(kafka: KafkaSettings, cluster_id: str, state_topics: Sequence[str]) -> Wiring:
    """The wiring by these settings; `state_topics` name the topics of the state so that a new one has a new name."""
    return Wiring(
        kafka=kafka,
        inputs=(clients.topic_name(kafka, IMPRESSIONS), clients.topic_name(kafka, ACTIONS)),
        sessions=clients.topic_name(kafka, SESSIONS),
        histories=clients.topic_name(kafka, HISTORIES),
        changelog=clients.topic_name(kafka, JOINER_CHANGELOG),
        dead_letters=clients.topic_name(kafka, DEAD_LETTERS),
        impression_codec=codec(kafka, IMPRESSIONS),
        action_codec=codec(kafka, ACTIONS),
        session_codec=codec(kafka, SESSIONS),
        history_codec=codec(kafka, HISTORIES),
        dead_letter_codec=codec(kafka, DEAD_LETTERS),
        identity="/".join((cluster_id, *state_topics)),
        cluster_id=cluster_id,
    )


def _topic_ids(admin: AdminClient, kafka: KafkaSettings, topics: tuple[Topic, ...]) -> list[str]:
    """Name and id of each topic: one that was deleted and made anew has another id, where the broker knows ids."""
    names = [clients.topic_name(kafka, topic) for topic in topics]
    futures = admin.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)
    ids = []
    for name in names:
        try:
            ids.append(f"{name}:{futures[name].result(TIMEOUT_S).topic_id}")
        except KafkaException as error:
            LOG.info("the broker tells no topic ids (%s); local state is recognised by cluster and name", error)
            ids.append(name)
    return ids
