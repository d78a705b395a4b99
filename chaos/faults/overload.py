"""Five times as many requests as the worker can answer, for a while; then it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from chaos.crowd import Crowd
from chaos.fault import Context, Fault, Outcome
from chaos.system import System, worker
from schemas.records import Status

TIMES = 5.0
DEADLINE_MS = 2_000
OUTSTANDING = 64
"""Enough to fill the worker's batches, far less than what it would have to turn away."""
WARM_UP_S = 3.0
MEASURED_S, FLOOD_S = {True: 10.0, False: 6.0}, {True: 40.0, False: 12.0}
"""By whether it is the long form."""
ANSWER_TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.25
MIN_GOODPUT = {True: 0.5, False: 0.4}
"""Answers in time a second under overload, by the capacity. Broker and sampler, which have five times as much to do
as well, are on the same cores as the worker; the short form runs beside other work."""
MAX_GROWTH_MB = 200.0
MAX_RECOVERY_S = 10.0


def run(context: Context) -> Outcome:
    """Measure the capacity, flood, and see how soon a request is answered again."""
    environment = {"ONEREC_INFERENCE__WORKER__DEADLINE_MS": str(DEADLINE_MS)}
    with context.system(environment=environment) as system:
        users = context.log.histories.user_ids.tolist()
        time_ms = int(context.log.exposures.times_ms[0])
        with system.feeding(), Crowd(system.settings, users, time_ms) as crowd:
            seen = _flood(context, system, crowd)
        return context.judge(system, seen=seen.words(), vacuous=not seen.overloaded, broken=seen.broken())


@dataclass(frozen=True, slots=True)
class Seen:
    """What one flood led to; rates a second, memory of the worker in MB."""

    capacity: float
    goodput: float
    asked: int
    answered: int
    late: int
    overloaded: int
    refused: int
    missing: int
    repeated: int
    before_mb: float
    peak_mb: float
    recovery_s: float
    min_goodput: float

    def words(self) -> str:
        """All of it."""
        return (
            f"{self.capacity:.0f} requests/s answered in calm; {self.asked} asked, {self.answered} answered, "
            f"{self.late} of them late, {self.overloaded} overloaded, {self.refused} refused, {self.missing} without "
            f"an answer, {self.repeated} answered twice; {self.goodput:.0f}/s in time, "
            f"{self.goodput / self.capacity:.0%} of the capacity; the worker had {self.before_mb:.0f} MB before and "
            f"{self.peak_mb:.0f} at most; calm again after {self.recovery_s:.1f} s"
        )

    def broken(self) -> str:
        """What breaks its bound."""
        bounds = {
            f"less than {self.min_goodput:.0%} of the capacity": self.goodput < self.min_goodput * self.capacity,
            f"more than {MAX_GROWTH_MB:.0f} MB of growth": self.peak_mb - self.before_mb > MAX_GROWTH_MB,
            f"more than {MAX_RECOVERY_S:.0f} s to recover": self.recovery_s > MAX_RECOVERY_S,
            "requests that were refused": self.refused > 0,
            "requests without an answer": self.missing > 0,
            "late or repeated answers": self.late + self.repeated > 0,
        }
        return ", ".join(words for words, is_broken in bounds.items() if is_broken)


def _flood(context: Context, system: System, crowd: Crowd) -> Seen:
    measured_s, flood_s = MEASURED_S[context.long], FLOOD_S[context.long]
    crowd.wait(crowd.keep_asking(OUTSTANDING, WARM_UP_S), ANSWER_TIMEOUT_S)
    capacity = _capacity(crowd, measured_s)
    context.say(f"the worker answers {capacity:.0f} requests a second; now {TIMES:g} times as many come")
    memory = Memory(system)
    flood = crowd.flood(TIMES * capacity, flood_s, memory.look)
    recovery_s = _recovery_s(crowd)
    missing = crowd.wait(flood, ANSWER_TIMEOUT_S)
    capacity = (capacity + _capacity(crowd, measured_s)) / 2.0  # other work on the machine changes it
    statuses, late = crowd.statuses(flood), crowd.late(flood, DEADLINE_MS)
    return Seen(
        capacity=capacity,
        goodput=(statuses[Status.ANSWERED] - late) / flood_s,
        asked=len(flood),
        answered=statuses[Status.ANSWERED],
        late=late,
        overloaded=statuses[Status.OVERLOADED],
        refused=statuses[Status.REFUSED],
        missing=missing,
        repeated=crowd.repeated,
        before_mb=memory.before_mb,
        peak_mb=memory.peak_mb,
        recovery_s=recovery_s,
        min_goodput=MIN_GOODPUT[context.long],
    )


def _capacity(crowd: Crowd, for_s: float) -> float:
    """Answers a second while the worker always has enough to fill its batches, and no more."""
    asked = crowd.keep_asking(OUTSTANDING, for_s)
    crowd.wait(asked, ANSWER_TIMEOUT_S)
    return max(1.0, crowd.statuses(asked)[Status.ANSWERED] / for_s)


class Memory:
    """Resident memory of the worker, before and at its peak."""

    def __init__(self, system: System) -> None:
        process = system.supervisor.services[worker(0)].process
        assert process is not None
        self._process = psutil.Process(process.pid)
        self._look_at_s = 0.0
        self.before_mb = self.peak_mb = self._now_mb()

    def look(self) -> None:
        """Look a few times a second."""
        if time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + LOOK_EVERY_S
            self.peak_mb = max(self.peak_mb, self._now_mb())

    def _now_mb(self) -> float:
        return float(self._process.memory_info().rss) / 1e6


def _recovery_s(crowd: Crowd) -> float:
    """From now until a request is sent that is answered; one is sent every quarter of a second."""
    over_s = time.monotonic()
    probes: dict[int, float] = {}
    while time.monotonic() - over_s < ANSWER_TIMEOUT_S:
        probes[crowd.ask()] = time.monotonic()
        until_s = time.monotonic() + LOOK_EVERY_S
        while time.monotonic() < until_s:
            crowd.look(0.02)
        for probe, sent_s in probes.items():
            if probe in crowd.told and crowd.told[probe].status is Status.ANSWERED:
                return sent_s - over_s
    return ANSWER_TIMEOUT_S


FAULT = Fault(
    name="overload",
    injected=f"{TIMES:g} times the requests that one worker can answer, each with {DEADLINE_MS} ms",
    promise=f"each is answered in time or told `overloaded`; {MIN_GOODPUT[True]:.0%} of the capacity is kept, memory "
    f"stays bounded, and {MAX_RECOVERY_S:.0f} s later it is as before",
    run=run,
    in_short=True,
)
