"""The stages of `onerec demo`: broker, catalogue, seed, the live loop, and the report.

Every service is a process of its own and is the same code that runs in production; what the demo adds is the
order, the replayed log and the report.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onerec.demo.profile import Sampling
from onerec.demo.supervisor import ServiceFailedError, Supervisor
from onerec.demo.usage import Usage
from onerec.errors import ExitCode
from onerec.kafka.admin import create_topics, wait_for_broker
from onerec.kafka.embedded import EmbeddedBroker
from onerec.metrics import Samples, scrape
from onerec.settings import Settings
from onerec.tracing import VARIABLE

LOG = logging.getLogger(__name__)
EVALUATOR, REPLAY, REPORT, AUDIT, REPRODUCE = "evaluator", "replay", "report", "audit", "reproduce"
CHECKED = (ExitCode.DONE, ExitCode.CHECK_FAILED)
SERVING = ("worker", "shadow", "sampler")
JOB_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 600.0
DRAIN_TIMEOUT_S = 60.0
SCRAPE_EVERY_S = 1.0
CALM_SCRAPES = 3
"""In a row with nothing to do, until nothing comes any more: a service knows of a record when it has fetched it, which
is a moment after the one before it has told that it is done."""
DONE = ("stream_joiner_sessions_total", "trainer_sessions_total", "inference_sampler_pairs_total")
MAX_UNANSWERED = 48
IDLE_S, SIMULATED_IDLE_S = 4.0, 20.0
"""Simulated users wait for their answers between an item and what they do with it: on a busy machine for seconds."""
SIMULATED_FREQUENCY_POWER = 1.0
"""Of the trainer where users are simulated: docs/paper.md, Closed loop."""
SIMULATED_USERS = 500
EXPOSURES_OF_A_USER = 2
"""So many simulated users there are at least, and so many exposures each has about: all come within a day, many come
back, and the more there are, the more of them ask together."""
ASK_AHEAD_MS = 300_000
"""Enough event time for the worker to fill its batches; far less than the 30 minutes between a user's visits."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks of the demo."""

    directory: Path
    events: int
    seed_s: float
    preset: str
    bootstrap_servers: str | None
    partitions: int = 4
    profile: bool = False
    simulate: bool = False
    """Simulated users act on the answers, instead of a log that is replayed."""
    frequency_power: float | None = None
    """Of the trainer; by default 0, and where users are simulated SIMULATED_FREQUENCY_POWER."""
    speed: float = 0.0
    """Of the replay: event time per wall time, 0 for as fast as it goes."""
    publish_interval_s: float = 1.0
    """Twice the trainer's own: at full speed the whole loop shares two cores, and a version costs a tenth of a second
    of one in trainer, worker and sampler each."""

    @property
    def profile_folder(self) -> Path:
        """Where traces and profiles go."""
        return self.directory / "profile"


@dataclass(slots=True)
class Progress:
    """What the live view shows: the stage, and the newest metrics of all services."""

    stage: str = "starting"
    started: float = field(default_factory=time.monotonic)
    first_recommendation_s: float | None = None
    swaps: int = 0
    samples: Samples = field(default_factory=Samples)
    simulated: bool = False
    """Whether users are simulated: what counts is then what they watch, and not what a log foretells."""
    on_change: Callable[[Progress], None] = field(default=lambda _: None)

    def enter(self, stage: str) -> None:
        """The next stage begins."""
        self.stage = stage
        LOG.info("%5.1f s  %s", time.monotonic() - self.started, stage)
        self.on_change(self)


def configuration(options: Options, bootstrap_servers: str) -> str:
    """The TOML file of the run; other commands take it by `--config` and then talk to the running demo."""
    idle_s = SIMULATED_IDLE_S if options.simulate else IDLE_S
    power = options.frequency_power
    if power is None:
        power = SIMULATED_FREQUENCY_POWER if options.simulate else 0.0
    return f"""\
# Written by `onerec demo`. Use it while the demo runs: onerec recommend 712 --config {options.directory}/onerec.toml
[kafka]
bootstrap_servers = "{bootstrap_servers}"
partitions = {options.partitions}

[store]
uri = "{(options.directory / "store").resolve()}"

[model]
preset = "{options.preset}"

[stream.joiner]
idle_close_s = {idle_s}          # wall time; the log's night is minutes long here

[inference.decoding]
later_beam_width = 4        # the ranked next items come from the first slot and keep the full width

[inference.worker]
max_batch = 16
deadline_ms = 10_000        # this machine does everything at once

[stream.replay]
speed = {options.speed}

[trainer]
publish_interval_s = {options.publish_interval_s}
frequency_power = {power}       # above 0 where it learns from what it showed itself, else it narrows to few videos

[trainer.seed]
budget_s = {options.seed_s}
threads = 2
"""


@contextmanager
def broker_of(options: Options) -> Iterator[tuple[str, str]]:
    """Bootstrap servers and a description: the given broker, or an embedded one that ends with the run."""
    if options.bootstrap_servers:
        yield options.bootstrap_servers, options.bootstrap_servers
        return
    with EmbeddedBroker(options.directory) as embedded:
        yield embedded.bootstrap_servers, "embedded (Tansu, in memory)"


class Demo:
    """One run of the whole loop; `run` returns the report's fields that the demo itself measures."""

    def __init__(self, options: Options, settings: Settings, supervisor: Supervisor, progress: Progress) -> None:
        self.options = options
        self.settings = settings
        self.supervisor = supervisor
        self.progress = progress
        self.usage = Usage()
        self._next_scrape = 0.0

    def run(self) -> dict[str, Any]:
        """All stages in order; returns the report."""
        self._catalogue()
        self._services()
        self._live()
        self._drain()
        return self._report()

    def _catalogue(self) -> None:
        self.progress.enter("topics, items and histories")
        wait_for_broker(self.settings.kafka, 30.0)
        create_topics(self.settings.kafka)
        self.supervisor.run("import", "stream", "replay", "--only", "items,histories", timeout_s=JOB_TIMEOUT_S)
        self.progress.enter("balanced K-means: a codebook of semantic ids")
        self.supervisor.run("codebook", "stream", "codebook", timeout_s=JOB_TIMEOUT_S)
        self.supervisor.start("tokenizer", "stream", "tokenizer")
        self._wait_ready("tokenizer")

    def _services(self) -> None:
        self.progress.enter(f"the seed model trains on the histories, about {self.options.seed_s:.0f} s")
        traced = {VARIABLE: str(self.options.profile_folder.resolve())} if self.options.profile else {}
        self.supervisor.start("trainer", "trainer", "run", OMP_NUM_THREADS="2", **traced)
        self.supervisor.start("joiner", "stream", "joiner")
        if self.options.simulate:
            self._wait_ready("trainer", "joiner")
        else:
            report = str(self._file("prequential.json"))
            self.supervisor.start(EVALUATOR, "evaluation", "prequential", "--report", report)
            self._wait_ready("trainer", "joiner", EVALUATOR)
        for name in self._serving:
            shadow = (
                {
                    "ONEREC_INFERENCE__WORKER__PIN_VERSION": "1",
                    "ONEREC_INFERENCE__WORKER__SESSION": "false",
                    "ONEREC_INFERENCE__WORKER__OUTPUT_TOPIC": "recommendations-shadow",
                    "ONEREC_INFERENCE__WORKER__GROUP": "shadow",
                }
                if name == "shadow"
                else traced
            )
            self.supervisor.start(name, "inference", "sampler" if name == "sampler" else "worker", **shadow)
        self._wait_ready(*self._serving)

    @property
    def _serving(self) -> tuple[str, ...]:
        """Simulated users act on what they are shown: the frozen seed would be judged on answers nobody saw."""
        return tuple(name for name in SERVING if not (self.options.simulate and name == "shadow"))

    def _live(self) -> None:
        who = "simulated users act" if self.options.simulate else "the log flows"
        live = f"live: {who}, the model learns while it serves"
        self.progress.enter("simulated users are fitted to the people of the log" if self.options.simulate else live)
        replay = self.supervisor.start(REPLAY, *self._events(), "--summary", str(self._file("replay.json")))
        sampling = Sampling(self.options.profile_folder) if self.options.profile else None
        if sampling is not None:
            sampling.begin(self.supervisor.process_ids())
        while replay.running:
            self._tick(except_for=REPLAY)
            if self.progress.stage != live and self.progress.samples.get("onerec_ready", job=REPLAY):
                self.progress.enter(live)
        if sampling is not None:
            sampling.end()
        self.supervisor.finished(replay)

    def _events(self) -> tuple[str, ...]:
        """What sends requests, impressions and actions."""
        if self.options.simulate:
            people = max(SIMULATED_USERS, self.options.events // EXPOSURES_OF_A_USER)
            return (
                *("evaluation", "simulate", "--users", str(people)),
                *("--exposures", str(self.options.events), "--hours", "240"),
            )
        ports = self.supervisor.endpoints()
        return (
            *("stream", "replay", "--only", "events", "--events", str(self.options.events)),
            *("--max-unanswered", str(MAX_UNANSWERED), "--ask-ahead-ms", str(ASK_AHEAD_MS), "--await-shadow"),
            *(f"--follower={name}={ports[name]}" for name in ("joiner", "trainer")),
        )

    def _drain(self) -> None:
        """Wait until what was produced has been joined, learned and served, so that the report is about all of it."""
        self.progress.enter("the last sessions close and are learned from")
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        calm, before = 0, self._done()
        while time.monotonic() < deadline and calm < CALM_SCRAPES:
            if self._tick():
                done = self._done()
                calm = calm + 1 if self._drained() and done == before else 0
                before = done
        if calm < CALM_SCRAPES:
            LOG.warning("not everything was learned within %.0f s; the report counts what is missing", DRAIN_TIMEOUT_S)

    def _done(self) -> tuple[float, ...]:
        return tuple(self.progress.samples.get(name) for name in DONE)

    def _drained(self) -> bool:
        samples = self.progress.samples
        waiting = sum(
            samples.get(name)
            for name in (
                "stream_joiner_lag_events",
                "stream_joiner_open_impressions",
                "stream_joiner_open_sessions",
                "trainer_lag_events",
                "inference_worker_lag_events",
                "inference_sampler_pending",
            )
        )
        return waiting == 0

    def _report(self) -> dict[str, Any]:
        self.progress.enter("the report: the topics are read afresh")
        wall_s = time.monotonic() - self.progress.started
        swaps = int(self.progress.samples.get("inference_worker_swaps_total", job="worker"))
        version = int(self.progress.samples.get("trainer_version", job="trainer"))
        self.supervisor.stop((*SERVING, "joiner", EVALUATOR, "tokenizer", "trainer"))
        self.supervisor.run(REPORT, "evaluation", "report", "--out", str(self._file("topics.json")), timeout_s=120.0)
        replayed = json.loads(self._file("replay.json").read_text())
        own = "simulated" if self.options.simulate else "prequential"
        found = replayed if self.options.simulate else json.loads(self._file("prequential.json").read_text())
        audit, reproduced = self._audit(), self._reproduce(version)
        return {
            "events_produced": replayed["exposures"],
            "records_produced": replayed["records"],
            **json.loads(self._file("topics.json").read_text()),
            "swaps": swaps,
            "audit": audit,
            "reproduced": reproduced,
            own: found,
            "first_recommendation_s": round(self.progress.first_recommendation_s or 0.0, 1),
            "wall_s": round(wall_s, 1),
            "cpu_s": {name: round(used, 1) for name, used in self.usage.cpu_s.items()},
            "peak_rss_mb": round(self.usage.peak_bytes / 1e6),
        }

    def _audit(self) -> dict[str, int]:
        """What `onerec audit` finds; an embedded broker serves aborted transactions, too."""
        self.progress.enter("the audit: what must be there is computed from the topics")
        repeats = () if self.options.bootstrap_servers else ("--broker-repeats-allowed",)
        file = self._file("audit.json")
        self.supervisor.run(AUDIT, "audit", "--json", str(file), *repeats, timeout_s=JOB_TIMEOUT_S, accepted=CHECKED)
        found = json.loads(file.read_text())
        return {name: found[name] for name in ("lost", "duplicated", "wrong")}

    def _reproduce(self, version: int) -> dict[str, Any]:
        """Whether the newest version comes out again from a checkpoint, the journal and the log."""
        self.progress.enter(f"version {version} is made again from the journal")
        code = self.supervisor.run(
            *(REPRODUCE, "trainer", "reproduce", str(version)),
            timeout_s=JOB_TIMEOUT_S,
            accepted=CHECKED,
            ONEREC_STORE__STATE_DIR=str(self.options.directory / "state" / "trainer"),
        )
        return {"version": version, "identical": code == ExitCode.DONE}

    def _file(self, name: str) -> Path:
        return self.options.directory / name

    def _wait_ready(self, *names: str, within_s: float = READY_TIMEOUT_S) -> None:
        deadline = time.monotonic() + within_s
        while not all(self.progress.samples.get("onerec_ready", job=name) for name in names):
            if time.monotonic() > deadline:
                raise ServiceFailedError(
                    f"{', '.join(names)} did not get ready within {within_s:.0f} s.", "See the logs."
                )
            self._tick()

    def _tick(self, *, except_for: str = "") -> bool:
        """Look after the services and, once a second, at their metrics; whether it was time for that."""
        self.supervisor.check(except_for=except_for)
        now = time.monotonic()
        is_due = now >= self._next_scrape
        if is_due:
            self._next_scrape = now + SCRAPE_EVERY_S
            self.usage.sample(self.supervisor.process_ids())
            self.progress.samples = scrape(self.supervisor.endpoints())
            answered = self.progress.samples.get("inference_worker_requests_total", job="worker", status="answered")
            if answered and self.progress.first_recommendation_s is None:
                self.progress.first_recommendation_s = now - self.progress.started
            self.progress.on_change(self.progress)
        time.sleep(0.05)
        return is_due
