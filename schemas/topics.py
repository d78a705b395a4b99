"""The table of topics: name, key, record, cleanup and partitions of each. `onerec topics create` makes them so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas import records


class Key(StrEnum):
    """What a topic is keyed by, as ASCII decimal digits for ids and as UTF-8 for names."""

    ITEM = "item_id"
    USER = "user_id"
    MODEL = "model"
    AS_IT_CAME = "as it came"


class Cleanup(StrEnum):
    """How old records go: `compact` keeps the newest of each key, `delete` goes by time, `keep` never."""

    COMPACT = "compact"
    DELETE = "delete"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic; `record` is None for the joiner's private changelog."""

    name: str
    key: Key
    record: type | None
    cleanup: Cleanup
    by_user: bool
    """Whether it has the configured number of partitions; the others have one, so that all see one order."""


ITEMS = Topic("items", Key.ITEM, records.Item, Cleanup.COMPACT, by_user=False)
ITEM_TOKENS = Topic("item-tokens", Key.ITEM, records.ItemTokens, Cleanup.COMPACT, by_user=False)
IMPRESSIONS = Topic("impressions", Key.USER, records.Impression, Cleanup.DELETE, by_user=True)
ACTIONS = Topic("actions", Key.USER, records.Action, Cleanup.DELETE, by_user=True)
HISTORIES = Topic("histories", Key.USER, records.History, Cleanup.COMPACT, by_user=True)
SESSIONS = Topic("sessions", Key.USER, records.Session, Cleanup.DELETE, by_user=True)
REQUESTS = Topic("requests", Key.USER, records.Request, Cleanup.DELETE, by_user=True)
RECOMMENDATIONS = Topic("recommendations", Key.USER, records.Recommendation, Cleanup.DELETE, by_user=True)
SHADOW_RECOMMENDATIONS = Topic("recommendations-shadow", Key.USER, records.Recommendation, Cleanup.DELETE, by_user=True)
PREFERENCES = Topic("preferences", Key.USER, records.PreferencePair, Cleanup.DELETE, by_user=True)
MODEL_VERSIONS = Topic("model-versions", Key.MODEL, records.ModelVersion, Cleanup.COMPACT, by_user=False)
TRAINER_JOURNAL = Topic("trainer-journal", Key.MODEL, records.JournalEntry, Cleanup.KEEP, by_user=False)
DEAD_LETTERS = Topic("dead-letters", Key.AS_IT_CAME, records.DeadLetter, Cleanup.DELETE, by_user=False)
JOINER_CHANGELOG = Topic("joiner-changelog", Key.USER, None, Cleanup.COMPACT, by_user=True)

TOPICS: tuple[Topic, ...] = (
    ITEMS,
    ITEM_TOKENS,
    IMPRESSIONS,
    ACTIONS,
    HISTORIES,
    SESSIONS,
    REQUESTS,
    RECOMMENDATIONS,
    SHADOW_RECOMMENDATIONS,
    PREFERENCES,
    MODEL_VERSIONS,
    TRAINER_JOURNAL,
    DEAD_LETTERS,
    JOINER_CHANGELOG,
)
INPUTS: tuple[Topic, ...] = (ITEMS, IMPRESSIONS, ACTIONS, REQUESTS)
"""What producers outside publish: the only topics that a dead letter may be put back into."""
BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}


def id_key(identifier: int) -> bytes:
    """Key of a record by user or item: the id in ASCII decimal digits, as every client library can make it."""
    return b"%d" % identifier
