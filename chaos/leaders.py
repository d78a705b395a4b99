"""Which broker of a cluster leads what, and whether all replicas are in sync again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]

from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from onerec.settings import KafkaSettings

GROUPS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"
TIMEOUT_S = 10.0
START_TIMEOUT_S = 300.0
"""Three nodes beside other work on two cores have taken almost three minutes."""
SYNC_TIMEOUT_S = 90.0
POLL_S = 0.2


class Leaders:
    """Looks at a cluster from outside, by its metadata."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """`kafka` names the brokers; prefixes do not matter."""
        self._client = AdminClient(clients.properties(kafka, log_level=0))

    def of_partition(self, topic: str, partition: int) -> int:
        """The broker that leads a partition; `topic` is its name on the broker."""
        return self._until(lambda found: found.topics[topic].partitions[partition].leader, f"{topic}[{partition}]")

    def of_group(self, group: str) -> int:
        """The broker that coordinates a consumer group; `group` is its whole name."""
        return self._coordinator(GROUPS, group)

    def of_transactions(self, transactional_id: str) -> int:
        """The broker that coordinates the transactions of a producer."""
        return self._coordinator(TRANSACTIONS, transactional_id)

    def wait_alive(self, brokers: Iterable[int]) -> None:
        """Until these brokers belong to the cluster. Raises DependencyMissingError after START_TIMEOUT_S."""
        wanted = set(brokers)
        what = f"brokers {sorted(wanted)}"
        self._until(lambda found: 0 if wanted <= found.brokers.keys() else -1, what, START_TIMEOUT_S)

    def wait_in_sync(self, brokers: Iterable[int]) -> None:
        """Until these brokers are there and every partition has all its replicas in sync.

        Raises DependencyMissingError after SYNC_TIMEOUT_S.
        """
        wanted = set(brokers)

        def lacking(found: ClusterMetadata) -> int:
            partitions = (p for topic in found.topics.values() for p in topic.partitions.values())
            whole = all(len(p.isrs) == len(p.replicas) and p.leader >= 0 for p in partitions)
            return 0 if whole and wanted <= found.brokers.keys() else -1

        self._until(lacking, "all replicas in sync")

    def _coordinator(self, internal: str, name: str) -> int:
        """What is kept under `name` has the partition of its hash, as Java strings have it."""

        def leader(found: ClusterMetadata) -> int:
            partitions = found.topics[internal].partitions
            leads: int = partitions[(java_hash(name) & 0x7FFFFFFF) % len(partitions)].leader
            return leads

        return self._until(leader, f"coordinator of {name}")

    def _until(self, look: Callable[[ClusterMetadata], int], what: str, timeout_s: float = SYNC_TIMEOUT_S) -> int:
        """The first answer that is not negative."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                answer: int = look(self._client.list_topics(timeout=TIMEOUT_S))
            except (KafkaException, KeyError):
                answer = -1
            if answer >= 0:
                return answer
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(f"The cluster does not get there: {what}.", "See the logs of its nodes.")
            time.sleep(POLL_S)


def java_hash(text: str) -> int:
    """`String.hashCode` of Java, 32 bits unsigned; `text` is ASCII."""
    found = 0
    for byte in text.encode("ascii"):
        found = (31 * found + byte) & 0xFFFFFFFF
    return found
