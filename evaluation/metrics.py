"""Metrics of the prequential evaluation."""

from __future__ import annotations

from prometheus_client import Gauge

HIT_RATE = Gauge("evaluation_hit_rate", "HitRate@10 by visit so far.", ["system"])
NDCG = Gauge("evaluation_ndcg", "NDCG@10 by visit so far.", ["system"])
VISITS = Gauge("evaluation_visits", "Visits with a positive that have been scored.")
LEAKED = Gauge("evaluation_leaked_answers", "Answers by weights that had learned what they were to predict: must be 0.")
EVENT_TIME = Gauge("evaluation_event_time_seconds", "Event time up to which visits have been scored.")
