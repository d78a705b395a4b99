"""Metrics of the prequential evaluation, and of simulated users."""

from __future__ import annotations

from prometheus_client import Gauge

HIT_RATE = Gauge("evaluation_hit_rate", "HitRate@10 by visit so far.", ["system"])
NDCG = Gauge("evaluation_ndcg", "NDCG@10 by visit so far.", ["system"])
VISITS = Gauge("evaluation_visits", "Visits with a positive that have been scored.")
LEAKED = Gauge("evaluation_leaked_answers", "Answers by weights that had learned what they were to predict: must be 0.")
EVENT_TIME = Gauge("evaluation_event_time_seconds", "Event time up to which visits have been scored.")
SIMULATED_VISITS = Gauge(
    "evaluation_simulated_visits", "Visits of simulated users that have ended and showed something."
)
SIMULATED_WATCH = Gauge("evaluation_simulated_watch_seconds", "Mean watch time of these visits.")
SIMULATED_ITEMS = Gauge("evaluation_simulated_items", "Mean number of items that these visits showed.")
