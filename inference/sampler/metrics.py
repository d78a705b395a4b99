"""Metrics of the sampler; those of following versions are in inference/weights_metrics.py."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SCALAR_BUCKETS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0)
SHARE_BUCKETS = tuple(step / 20 for step in range(1, 21))
SECONDS_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)

REQUESTS = Counter("inference_sampler_requests_total", "Live requests seen.")
SAMPLED = Counter("inference_sampler_sampled_total", "Requests whose hash fell into the share.")
PAIRS = Counter("inference_sampler_pairs_total", "Preference pairs sent.")
SKIPPED = Counter("inference_sampler_skipped_total", "Sampled requests that gave no pair.", ["reason"])
PENDING = Gauge("inference_sampler_pending", "Sampled requests that wait for their pair.")
REWARD = Histogram(
    "inference_sampler_reward",
    "Mean over the objectives, by their weights, of what the reward model expects: in [0, 1].",
    ["which"],
    buckets=SHARE_BUCKETS,
)
OBJECTIVE = Histogram(
    "inference_sampler_objective_reward",
    "What the reward model expects, by objective.",
    ["which", "objective"],
    buckets=SHARE_BUCKETS,
)
MARGIN = Histogram(
    "inference_sampler_margin",
    "Scalar reward of chosen less that of rejected, in standard deviations.",
    buckets=SCALAR_BUCKETS,
)
SPREAD = Histogram(
    "inference_sampler_unique_items_share",
    "Different items among all places of the candidates.",
    buckets=SHARE_BUCKETS,
)
SECONDS = Histogram(
    "inference_sampler_pair_seconds", "To generate and score the candidates of a request.", buckets=SECONDS_BUCKETS
)
