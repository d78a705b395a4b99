"""The joiner against Faust, quixstreams, Kafka Streams and Flink, each alone on one core, Apache Kafka on the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.bench import Bench, Bound, Context, Measured
from bench.environments import PeerMissingError, interpreter
from bench.joining import feed, runs
from bench.joining.progress import Rates
from bench.joining.runs import Ground
from onerec.errors import OneRecError

EVENTS, EVENTS_BRIEF = 1_000_000, 300_000
PER_S, PER_S_BRIEF = 100.0, 30.0
"""Requests in a second of event time: the second half of the stream closes as many windows as it opens."""
PREFIXES = ("one-", "two-")
"""A system for each turn of ours: the second must not find the state of the first."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who joins, and on how many events at most."""

    run: Callable[[Ground, int], Rates]
    events: int
    java: bool = False


def _faust(place: Ground, events: int) -> Rates:
    return runs.faust(place, PREFIXES[0], events)


def _quixstreams(place: Ground, events: int) -> Rates:
    return runs.quixstreams(place, interpreter("quixstreams"), PREFIXES[0], events)


def _measure(context: Context, peer: Peer) -> Measured:
    events, per_s = (EVENTS_BRIEF, PER_S_BRIEF) if context.brief else (EVENTS, PER_S)
    prefixes = PREFIXES[:1] if context.brief else PREFIXES
    theirs: Rates | None = None
    told: dict[str, Any] = {"broker": "Apache Kafka on a core of its own", "transaction_ms": runs.TRANSACTION_MS}
    with runs.ground(context.directory) as place:
        systems = [place.settings(prefix) for prefix in prefixes]
        feed.feed_ours(systems, events, per_s)
        mine = [runs.ours(place, systems[0], events)]
        try:
            if peer.java:
                feed.feed_java(place.settings(""), events, per_s)
            theirs = peer.run(place, min(events, peer.events))
        except PeerMissingError as error:
            told["reason"] = str(error)
        except OneRecError as error:  # the peer's failure is no figure of it, and none of ours
            told["reason"] = f"the peer failed: {error}"
        mine += [runs.ours(place, system, events) for system in systems[1:]]
    warm = statistics.median(rates.warm for rates in mine)
    told |= {
        "events": events,
        "ours_events_per_s": [{"all": round(one.all), "second_half": round(one.warm)} for one in mine],
    }
    if theirs is not None:
        told["peer_events"] = theirs.events
        told["peer_events_per_s"] = {"all": round(theirs.all), "second_half": round(theirs.warm)}
    peer_warm = theirs.warm if theirs is not None else None
    return Measured(warm, peer_warm, warm / peer_warm if peer_warm else None, None, {}, told)


def _bench(name: str, what: str, times: float, peer: Peer) -> Bench:
    return Bench(
        f"joiner_{name}",
        f"impressions and actions joined on one core, exactly once, with state and changelog, against {what}; rates "
        "are those of the second half, when whatever compiles has compiled",
        "events/s",
        (Bound("ratio", ">=", times),),
        partial(_measure, peer=peer),
    )


BENCHES = (
    _bench(
        "faust",
        "Faust doing a table update an event and a send for every fifth, at least once",
        50.0,
        Peer(_faust, 15_000),
    ),
    _bench(
        "quixstreams", "quixstreams doing the same join exactly once, without timers", 2.0, Peer(_quixstreams, 200_000)
    ),
    _bench(
        "kafkastreams",
        "Kafka Streams doing the same work, exactly_once_v2, RocksDB and changelog",
        1.5,
        Peer(runs.kafka_streams, EVENTS, java=True),
    ),
    _bench(
        "flink",
        "Flink doing the same work, heap state, checkpoints and two-phase commit",
        1.0,
        Peer(runs.flink, EVENTS, java=True),
    ),
)
