"""Metrics of the tokenizer. What it refuses is in onerec_dead_letters_total{service="tokenizer"}."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ITEMS = Counter(
    "stream_tokenizer_items_total",
    "Items tokenised: new ones, those whose tokens changed, and those already published the same.",
    ["outcome"],
)
COLLISIONS = Counter("stream_tokenizer_collisions_total", "New items whose semantic id was taken and that moved.")
LATENCY = Histogram(
    "stream_tokenizer_latency_seconds",
    "From an item's timestamp on topic items to its tokens on item-tokens, for items that came while it ran.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0),
)
CATALOGUE = Gauge("stream_tokenizer_catalogue_items", "Items with tokens on item-tokens.")
VERSION = Gauge("stream_tokenizer_codebook_version", "The codebook in use.")
