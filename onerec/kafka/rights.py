"""Who may do what on the broker: the least rights of each user, as a table and as Kafka's access rules.

`onerec topics rights` prints it for the prefixes and names in the settings, docs/security.md shows it for the
defaults, each service asks the broker at its start whether it has its own (onerec.kafka.access), and a test runs the
whole loop with them and takes them away one by one.

To write is always idempotent, which since Kafka 3.0 needs no right but the one to write; reading or writing a topic,
and reading with a group, include describing it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from onerec.kafka import clients
from onerec.settings import Settings
from schemas import topics
from schemas.topics import BY_NAME, TOPICS, Topic

JOINER, TRAINER, WORKER, DEAD_LETTERS = "joiner", "trainer", "worker", "dead-letters"


class Resource(StrEnum):
    """What a right is on, as kafka-acls spells it."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"


class Operation(StrEnum):
    """What may be done, as kafka-acls spells it."""

    READ = "Read"
    WRITE = "Write"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    CREATE = "Create"


@dataclass(frozen=True, slots=True)
class Right:
    """A user may do this on that; `prefixed`: on all whose names begin so."""

    user: str
    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    why: str
    prefixed: bool = False

    def __str__(self) -> str:
        """As a sentence has it: Read on topic sessions."""
        pattern = "…" if self.prefixed else ""
        return f"{' and '.join(self.operations)} on {self.resource} {self.name}{pattern}"


class _Rights:
    """The rights of one user, with the names that the settings give."""

    def __init__(self, user: str, settings: Settings) -> None:
        self._user = user
        self._kafka = settings.kafka
        self.found: list[Right] = []

    def topic(self, topic: Topic, *operations: Operation, why: str) -> None:
        self._add(Resource.TOPIC, clients.topic_name(self._kafka, topic), operations, why)

    def reads(self, why: str, *found: Topic) -> None:
        for topic in found:
            self.topic(topic, Operation.READ, why=why)

    def writes(self, why: str, *found: Topic) -> None:
        for topic in found:
            self.topic(topic, Operation.WRITE, why=why)

    def group(self, name: str, operation: Operation, why: str, *, prefixed: bool = False) -> None:
        self._add(Resource.GROUP, self._kafka.group_prefix + name, (operation,), why, prefixed=prefixed)

    def follows(self) -> None:
        """Readers without a group, whose client asks for the coordinator of a nominal one all the same."""
        self.group(clients.NO_GROUP, Operation.DESCRIBE, "readers without a group")

    def transactions(self, name: str, why: str, *, prefixed: bool = False) -> None:
        full = f"{self._kafka.topic_prefix}{self._kafka.group_prefix}{name}"
        self._add(Resource.TRANSACTIONAL_ID, full, (Operation.WRITE,), why, prefixed=prefixed)

    def refuses(self) -> None:
        self.writes("what it refuses", topics.DEAD_LETTERS)

    def _add(
        self, resource: Resource, name: str, operations: tuple[Operation, ...], why: str, *, prefixed: bool = False
    ) -> None:
        self.found.append(Right(self._user, resource, name, operations, why, prefixed))


def _producer(rights: _Rights, _: Settings) -> None:
    rights.writes("publishes", topics.ITEMS, topics.IMPRESSIONS, topics.ACTIONS)


def _client(rights: _Rights, _: Settings) -> None:
    rights.writes("asks", topics.REQUESTS)
    rights.reads("answers", topics.RECOMMENDATIONS)
    rights.reads("tags of the items, for `onerec recommend`", topics.ITEM_TOKENS)
    rights.follows()


def _tokenizer(rights: _Rights, _: Settings) -> None:
    rights.reads("embeddings", topics.ITEMS)
    rights.topic(topics.ITEM_TOKENS, Operation.READ, Operation.WRITE, why="semantic ids; restores those it gave")
    rights.refuses()
    rights.group("tokenizer-", Operation.READ, "one group a codebook", prefixed=True)
    rights.follows()


def _joiner(rights: _Rights, _: Settings) -> None:
    rights.reads("joins", topics.IMPRESSIONS, topics.ACTIONS)
    rights.reads("known items", topics.ITEM_TOKENS)
    rights.writes("what is joined", topics.SESSIONS)
    for topic in (topics.HISTORIES, topics.JOINER_CHANGELOG):
        rights.topic(topic, Operation.READ, Operation.WRITE, why="its state, restored at the start")
    rights.refuses()
    rights.group("joiner", Operation.READ, "shares partitions, commits offsets")
    rights.transactions("joiner-", "one id an instance", prefixed=True)
    rights.follows()


def _trainer(rights: _Rights, settings: Settings) -> None:
    rights.reads("learns from", topics.SESSIONS, topics.PREFERENCES, topics.HISTORIES, topics.ITEM_TOKENS)
    rights.topic(topics.TRAINER_JOURNAL, Operation.READ, Operation.WRITE, why="its journal, continued at the start")
    rights.topic(topics.MODEL_VERSIONS, Operation.READ, Operation.WRITE, why="announces; reads what is pinned")
    rights.refuses()
    rights.transactions(f"trainer-{settings.model.name}", "announces in transactions")
    rights.follows()


def _worker(rights: _Rights, settings: Settings) -> None:
    worker = settings.inference.worker
    output = BY_NAME.get(worker.output_topic)
    rights.reads("answers", topics.REQUESTS)
    rights.reads("follows", topics.MODEL_VERSIONS, topics.ITEM_TOKENS, topics.HISTORIES)
    if output is not None:
        rights.writes("answers", output)
    rights.refuses()
    rights.group(worker.group, Operation.READ, "shares partitions, commits offsets")
    rights.follows()


def _sampler(rights: _Rights, _: Settings) -> None:
    rights.reads("samples", topics.REQUESTS)
    rights.reads("follows", topics.MODEL_VERSIONS, topics.ITEM_TOKENS, topics.HISTORIES)
    rights.writes("pairs", topics.PREFERENCES)
    rights.refuses()
    rights.group("sampler", Operation.READ, "shares partitions, commits offsets")
    rights.follows()


def _auditor(rights: _Rights, _: Settings) -> None:
    rights.reads("evaluation, audit, reproduction", *TOPICS)
    rights.group("joiner", Operation.DESCRIBE, "what has been joined")
    rights.follows()


def _operator(rights: _Rights, _: Settings) -> None:
    for topic in TOPICS:
        read = (Operation.READ,) if topic in (topics.ITEMS, topics.MODEL_VERSIONS, topics.DEAD_LETTERS) else ()
        write = (Operation.WRITE,) if topic in _OPERATOR_WRITES else ()
        operations = (Operation.CREATE, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS, *read, *write)
        rights.topic(topic, *operations, why=_OPERATOR_WHY.get(topic, "makes and checks topics"))
    rights.transactions("dead-letters", "puts letters back in transactions")
    rights.follows()


_OPERATOR_WHY = {
    topics.ITEMS: "fits codebooks, puts letters back",
    topics.HISTORIES: "imports a past (`onerec replay --only histories`)",
    topics.MODEL_VERSIONS: "pins, rolls back",
    topics.DEAD_LETTERS: "lists letters and marks those put back",
    **dict.fromkeys((topics.IMPRESSIONS, topics.ACTIONS, topics.REQUESTS), "puts letters back"),
}
_OPERATOR_WRITES = frozenset(_OPERATOR_WHY)
USERS = {
    "producer": _producer,
    "client": _client,
    "tokenizer": _tokenizer,
    "joiner": _joiner,
    "trainer": _trainer,
    "worker": _worker,
    "sampler": _sampler,
    "auditor": _auditor,
    "operator": _operator,
}
"""A user a service, and those who are none: your producers and clients, `evaluation`, and you."""


def rights(settings: Settings, users: Iterable[str] = tuple(USERS)) -> list[Right]:
    """The rights of these users under the prefixes, model and groups of these settings."""
    found: list[Right] = []
    for user in users:
        own = _Rights(user, settings)
        USERS[user](own, settings)
        found += own.found
    return found


def commands(settings: Settings, granted: Iterable[Right]) -> Iterator[str]:
    """The kafka-acls commands that grant these rights; those alike in user and operations together."""
    alike: dict[tuple[str, Resource, tuple[Operation, ...], bool], list[str]] = {}
    for right in granted:
        alike.setdefault((right.user, right.resource, right.operations, right.prefixed), []).append(right.name)
    for (user, resource, operations, prefixed), names in alike.items():
        words = ["kafka-acls.sh", "--bootstrap-server", settings.kafka.bootstrap_servers]
        words += ["--command-config", "admin.properties", "--add", "--allow-principal", f"User:{user}"]
        words += [word for operation in operations for word in ("--operation", operation)]
        words += ["--resource-pattern-type", "prefixed"] if prefixed else []
        words += [word for name in names for word in (f"--{resource}", name)]
        yield shlex.join(words)


def markdown(granted: Iterable[Right]) -> str:
    """The rights as a Markdown table."""
    lines = ["| user | may | on | because |", "|---|---|---|---|"]
    alike: dict[tuple[str, tuple[Operation, ...], Resource, str, bool], list[str]] = {}
    for right in granted:
        key = (right.user, right.operations, right.resource, right.why, right.prefixed)
        alike.setdefault(key, []).append(right.name)
    for (user, operations, resource, why, prefixed), names in alike.items():
        shown = ", ".join(f"{name}*" if prefixed else name for name in names)
        lines.append(f"| {user} | {', '.join(operations)} | {resource} {shown} | {why} |")
    return "\n".join(lines) + "\n"
