"""The recomputation against the real joiner, on a Kafka in memory: whatever the order, a joiner's work audits clean."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from audit.findings import Findings, Kind
from tests.audit.bus_log import audit_bus
from tests.audit.joining import Joining
from tests.recovery.bus import Crash
from tests.recovery.bus_clients import TransactionalProducer, connect
from tests.stream.joiner.events import Event, delivered, impression, visits
from tests.stream.joiner.system import JOINER, System

MEMORY = Path("/dev/shm")


@contextmanager
def system_of(events: list[Event], *, batch: int = 5) -> Iterator[System]:
    """A bus with these events in this order; all clients of the process are on it."""
    directory = Path(tempfile.mkdtemp(prefix="audit-", dir=MEMORY if MEMORY.is_dir() else None))
    made = System(directory / "state", batch=batch, events=events)
    try:
        with pytest.MonkeyPatch.context() as patch:
            connect(patch, made.bus)
            yield made
    finally:
        shutil.rmtree(directory)


def explained(findings: Findings) -> str:
    return "\n".join(map(str, findings.places))


EVENTS = visits(span_ms=200, window_ms=JOINER.feedback_window_ms)


@hypothesis_settings(max_examples=30, deadline=None)
@given(events=EVENTS, seed=st.integers(0, 999), batch=st.integers(1, 9), flushed=st.booleans())
def test_within_the_lateness_every_run_audits_clean(events: list[Event], seed: int, batch: int, flushed: bool) -> None:
    ordered = delivered(events, JOINER.allowed_lateness_ms, seed)
    after = [impression(1, 10_000, user=1, request=99), impression(1, 10_000, user=2, request=99)] if flushed else []

    with system_of([*ordered, *after], batch=batch) as system:
        system.live()
        findings = audit_bus(system.bus, JOINER)

    assert findings.clean, explained(findings)
    shown = findings.line("impressions")
    assert shown.found == shown.expected


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    events=EVENTS,
    order=st.randoms(use_true_random=False),
    repeat=st.booleans(),
    cuts=st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["go on", "commit", "stand still"])), max_size=9),
    to_the_end=st.booleans(),
)
def test_whatever_the_order_and_wherever_the_stream_stands_still_it_audits_clean(
    events: list[Event], order: random.Random, repeat: bool, cuts: list[tuple[int, str]], to_the_end: bool
) -> None:
    shuffled = [*events, *events[::2]] if repeat else list(events)
    order.shuffle(shuffled)
    joining = Joining(JOINER)

    for size, then in [*cuts, (len(shuffled), "go on")]:
        batch, shuffled = shuffled[:size], shuffled[size:]
        joining.take(batch)
        if then == "stand still":
            joining.stand_still()
        if then != "go on":
            joining.commit()
    if to_the_end:
        joining.stand_still()
    joining.commit()
    findings = audit_bus(joining.bus, JOINER)

    assert findings.clean, explained(findings)
    for name in ("impressions", "actions"):
        assert findings.line(name).found == findings.line(name).expected


@hypothesis_settings(max_examples=25, deadline=None)
@given(events=EVENTS, crashes=st.lists(st.integers(1, 120), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_crashes_audit_clean(events: list[Event], crashes: list[int], seed: int) -> None:
    with system_of(delivered(events, 30, seed)) as system:
        system.live_through(crashes)
        findings = audit_bus(system.bus, JOINER)

    assert findings.clean, explained(findings)


@hypothesis_settings(max_examples=25, deadline=None)
@given(events=EVENTS, crash=st.integers(1, 150), seed=st.integers(0, 999))
def test_what_a_dead_joiner_left_open_is_neither_lost_nor_wrong(events: list[Event], crash: int, seed: int) -> None:
    with system_of(delivered(events, 30, seed)) as system:
        with suppress(Crash):
            system.live(crash)
        for transactional_id in list(system.bus.open):
            TransactionalProducer(system.bus, transactional_id).init_transactions(1.0)
        findings = audit_bus(system.bus, JOINER)

    assert findings.clean, explained(findings)
    assert findings.total(Kind.REPEATED) == 0
