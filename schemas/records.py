"""The records of the topics as frozen dataclasses, one for each `.avsc` file.

The `.avsc` files are the contract and document every field; a test holds these classes equal to them.
Arrays are tuples, enums are string enums, `bytes` that hold packed numbers are read with `schemas.packed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item of the catalogue as its producer publishes it."""

    item_id: int
    embedding: bytes
    duration_ms: int
    author_id: int
    tags: tuple[str, ...]
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTokens:
    """The semantic id of an item."""

    item_id: int
    codes: tuple[int, ...]
    codebook_version: int
    duration_ms: int
    tags: tuple[str, ...]
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """An item was shown to a user."""

    request_id: int
    user_id: int
    item_id: int
    position: int
    time_ms: int
    model_version: int | None = None
    produced_ms: int


class ActionKind(StrEnum):
    """Values of ActionKind; the .avsc file says what each means."""

    VIEW = "view"
    LIKE = "like"
    FOLLOW = "follow"
    COMMENT = "comment"
    SHARE = "share"
    DISLIKE = "dislike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a user did with an item that was shown."""

    request_id: int
    user_id: int
    item_id: int
    kind: ActionKind
    time_ms: int
    watch_ms: int | None = None
    duration_ms: int | None = None
    produced_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last n exposures of a user with what the user did."""

    user_id: int
    history_items: bytes
    history_times_ms: bytes
    history_labels: bytes
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionItem:
    """One exposure of a session with its labels."""

    item_id: int
    request_id: int
    position: int
    time_ms: int
    watch_ms: int
    duration_ms: int
    labels: int
    model_version: int | None = None
    produced_ms: int


class ClosedBy(StrEnum):
    """Values of ClosedBy; the .avsc file says what each means."""

    FULL = "full"
    GAP = "gap"
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """m exposures in a row (fewer when the gap closed it) with their labels: the unit of training."""

    session_id: int
    user_id: int
    history_items: bytes
    history_times_ms: bytes
    history_labels: bytes
    items: tuple[SessionItem, ...]
    start_ms: int
    end_ms: int
    total_watch_ms: int
    high_quality: bool
    closed_by: ClosedBy
    model_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Somebody wants recommendations."""

    request_id: int
    user_id: int
    time_ms: int
    items: int = 10
    deadline_ms: int = 0
    exclude_seen: bool = True
    exclude_items: bytes = b""
    tags: tuple[str, ...] = ()
    max_duration_ms: int | None = None
    produced_ms: int


class Status(StrEnum):
    """Values of Status; the .avsc file says what each means."""

    ANSWERED = "answered"
    OVERLOADED = "overloaded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedItem:
    """One item of an answer."""

    item_id: int
    log_prob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The answer to a request."""

    request_id: int
    user_id: int
    status: Status
    reason: str | None = None
    session: tuple[RecommendedItem, ...]
    session_log_prob: float
    ranked: tuple[RecommendedItem, ...]
    model_version: int
    catalogue_offset: int
    history_length: int
    time_ms: int
    produced_ms: int
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """What the reward model expects of one session (paper, section 3.3.1)."""

    swt: float
    vtr: float
    wtr: float
    ltr: float
    scalar: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """The best and the worst of the sessions generated for one request: training data of IPA (paper, section 3.3.2)."""

    pair_id: int
    request_id: int
    user_id: int
    time_ms: int
    history_items: bytes
    history_times_ms: bytes
    history_labels: bytes
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    chosen_log_prob: float
    rejected_log_prob: float
    chosen_rewards: Rewards
    rejected_rewards: Rewards
    candidates: int
    model_version: int
    catalogue_offset: int


class VersionKind(StrEnum):
    """Values of VersionKind; the .avsc file says what each means."""

    FULL = "full"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOffset:
    """How far one partition has been read."""

    topic: str
    partition: int
    next_offset: int


class VersionStatus(StrEnum):
    """Values of VersionStatus; the .avsc file says what each means."""

    PUBLISHED = "published"
    PINNED = "pinned"
    ROLLED_BACK = "rolled_back"
    UNPINNED = "unpinned"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version of the model, or what to serve of them."""

    model: str
    version: int
    parent: int | None = None
    step: int
    kind: VersionKind
    uri: str
    sha256: str
    size_bytes: int
    offsets: tuple[TopicOffset, ...]
    metrics: Mapping[str, float]
    status: VersionStatus
    created_ms: int
    learned_produced_ms: bytes
    preset: str
    codebook_version: int


class JournalKind(StrEnum):
    """Values of JournalKind; the .avsc file says what each means."""

    START = "start"
    STEP = "step"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """A contiguous stretch of one partition that one step consumed."""

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    records: int
    applied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """What the trainer consumed in one step, written before any version that depends on it is announced."""

    model: str
    step: int
    kind: JournalKind
    epoch: int = 0
    ranges: tuple[OffsetRange, ...]
    seed: int
    learning_rate: float
    loss: Mapping[str, float]
    refused: str | None = None
    version: int | None = None
    weights_sha256: str | None = None
    environment: Mapping[str, str]
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that a reader refused, whole, and why."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None
    value: bytes | None = None
    reason: str
    detail: str
    service: str
    time_ms: int
    truncated: bool = False
