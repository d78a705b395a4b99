"""What the joiner tells Prometheus. Counters count what is committed; gauges are as of the last commit."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from onerec.kafka.dead_letters import REFUSED
from schemas.reasons import Reason
from stream.joiner.work import Work

EVENTS = Counter("stream_joiner_events_total", "Impressions and actions joined.")
SESSIONS = Counter("stream_joiner_sessions_total", "Sessions published.", ["closed_by"])
HISTORIES = Counter("stream_joiner_histories_total", "Histories published, one a user and transaction.")
LATE = Counter("stream_joiner_late_total", "Events that came after their window.", ["topic"])
ORPHANS = Counter("stream_joiner_orphans_total", "Actions that no impression came for.")
DUPLICATES = Counter("stream_joiner_duplicates_total", "Events that were known already.")
OPEN_IMPRESSIONS = Gauge("stream_joiner_open_impressions", "Impressions whose window has not passed.")
WAITING_ACTIONS = Gauge("stream_joiner_waiting_actions", "Actions whose impression has not come.")
OPEN_SESSIONS = Gauge("stream_joiner_open_sessions", "Sessions in the making.")
PARTITIONS = Gauge("stream_joiner_partitions", "Partitions owned.")
LAG_EVENTS = Gauge("stream_joiner_lag_events", "Input records that the broker has and no transaction covers yet.")
WATERMARK_LAG = Gauge("stream_joiner_watermark_lag_seconds", "Wall clock less watermark, of the slowest partition.")
TRANSACTION = Histogram(
    "stream_joiner_transaction_seconds",
    "From the first write of a transaction to its commit and the local copy.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0),
)
RESTORE = Histogram(
    "stream_joiner_restore_seconds",
    "From the assignment of partitions to their first record.",
    buckets=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0),
)
REBUILDS = Counter("stream_joiner_rebuilds_total", "Transactions that failed, each answered by beginning anew.")


def count(work: Work) -> None:
    """Count what one transaction has committed for one partition."""
    tally = work.tally
    EVENTS.inc(tally.events)
    for closed_by, sessions in tally.closed.items():
        SESSIONS.labels(closed_by).inc(sessions)
    HISTORIES.inc(len(work.histories))
    LATE.labels("impressions").inc(tally.late_impressions)
    DUPLICATES.inc(tally.duplicates)
    for refusal in tally.refusals:
        REFUSED.labels("joiner", refusal.source, str(refusal.reason)).inc()
        if refusal.reason is Reason.ORPHAN:
            ORPHANS.inc()
        elif refusal.reason is Reason.LATE:
            LATE.labels(refusal.source).inc()
