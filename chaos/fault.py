"""What every fault has in common: a name, a promise, and a scenario that runs on a system and is judged."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.brokers import Broker
from chaos.log_slice import LogSlice
from chaos.oracle import judge
from chaos.system import System
from onerec.settings import KafkaSettings

LOG = logging.getLogger(__name__)
DRAIN_TIMEOUT_S = 180.0
"""Without anything that moves."""
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario has led to."""

    lost: int
    """Sessions and pairs that were not learned from, requests without an answer, and what the audit misses."""
    duplicated: int
    wrong: int
    """Records that are there once, but not as they must be."""
    identical: bool
    """Whether a run without faults over the same journal has the same weights, bit for bit."""
    kills: int = 0
    """Processes that ran and got SIGKILL."""
    seen: str = ""
    """What happened, with figures."""
    vacuous: bool = False
    """Whether the fault met nothing: then nothing is shown, and the run has failed."""
    broken: str = ""
    """Which bound of the fault's own does not hold, in words."""

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        lapses = (self.lost, self.duplicated, self.wrong, self.vacuous, self.broken)
        return self.identical and not any(lapses)


@dataclass(slots=True)
class Context:
    """What a scenario has to work with."""

    broker: Broker
    directory: Path
    """Of this fault alone."""
    long: bool
    """The long form; the short one is for CI and takes half a minute."""
    rng: random.Random
    """All chance comes from it, so that a run can be repeated by its seed."""
    log: LogSlice
    judged: list[System] = field(default_factory=list)
    """Systems that have ended and whose topics are still there."""

    def say(self, text: str) -> None:
        """Tell the person who waits, now."""
        LOG.info("%s", text)

    def pause(self, seconds: float) -> None:
        """Do nothing for so long: how long a fault lasts is part of it."""
        time.sleep(seconds)

    @contextmanager
    def system(
        self, kafka: KafkaSettings | None = None, *, environment: Mapping[str, str] | None = None
    ) -> Iterator[System]:
        """A running system on topics of its own; `kafka` names another broker than the run's.

        `environment` adds settings, as ONEREC_…, for all its services.
        """
        unique = uuid.uuid4().hex[:8]
        prefixes = {"topic_prefix": f"c{unique}-", "group_prefix": f"c{unique}-", "partitions": PARTITIONS}
        own = (kafka or self.broker.kafka).model_copy(update=prefixes)
        with System(own, self.directory / unique, self.log, environment=environment) as running:
            self.say(f"the system runs in {running.directory}")
            yield running

    def judge(
        self, system: System, *, kills: int = 0, seen: str = "", vacuous: bool = False, broken: str = ""
    ) -> Outcome:
        """Let the system do what it has to do, end it in order, and ask the oracle."""
        drained = system.progress.drain(system.tend, DRAIN_TIMEOUT_S)
        if not drained:
            seen += f"; given up: {', '.join(system.progress.behind()) or 'it does not come to rest'}"
        system.finish()
        exactly_once = self.broker.exactly_once or self._is_of_its_own(system)
        verdict = judge(system.settings, system.environment, system.directory, exactly_once=exactly_once)
        told = "; ".join(part for part in ("vacuous" if vacuous else "", broken, seen, verdict.detail) if part)
        lost = verdict.lost + (not drained)
        self.judged.append(system)
        return Outcome(lost, verdict.duplicated, verdict.wrong, verdict.identical, kills, told, vacuous, broken)

    def _is_of_its_own(self, system: System) -> bool:
        """Whether the system runs on a broker that the fault has brought with it, which is Apache Kafka."""
        return system.settings.kafka.bootstrap_servers != self.broker.kafka.bootstrap_servers


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. A file under chaos/faults defines one as FAULT."""

    name: str
    injected: str
    """How it is injected."""
    promise: str
    """What must be true afterwards."""
    run: Callable[[Context], Outcome]
    missing: Callable[[Broker], str | None] = lambda _: None
    """Why the fault cannot be shown on this broker; None where it can."""
    in_short: bool = False
    """Whether the short form has it."""


def needs_exactly_once(broker: Broker) -> str | None:
    """For faults that the embedded broker cannot judge."""
    return None if broker.exactly_once else f"the {broker.kind} broker does not keep Kafka's transaction contract"


def needs_restart(broker: Broker) -> str | None:
    """For faults of a single node that keeps its data."""
    return None if broker.process else f"the {broker.kind} broker is no single node that can be started again"
