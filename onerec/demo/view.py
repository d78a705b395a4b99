"""The live view of the loop in a terminal (rich), and plain lines where there is none."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from onerec.demo.loop import Progress
from onerec.metrics import Samples

REFRESH_PER_S = 4
PLAIN_EVERY_S = 10.0
LOOP = """\
 log ──impressions, actions──▶ joiner ──sessions──▶ trainer ──versions──▶ worker ──answers──▶ users
                                 └──histories──┐      ▲                    ▲  │ ▲               │
 items ──▶ tokenizer ──semantic ids──▶ everyone └─────│────────────────────┘  │ └──requests─────┘
                                                      └──preferences── sampler ◀── 1 % of requests"""
PICTURE = re.sub(r"joiner|trainer|worker|tokenizer|sampler", r"[bold cyan]\g<0>[/]", LOOP)


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table: a name, and where its number is found."""

    name: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()


RATES = (
    Line("events joined", "stream_joiner_events_total"),
    Line("sessions", "stream_joiner_sessions_total"),
    Line("requests answered", "inference_worker_requests_total", (("job", "worker"), ("status", "answered"))),
    Line("sessions learned", "trainer_sessions_total"),
    Line("preference pairs", "inference_sampler_pairs_total"),
    Line("refused to dead letters", "onerec_dead_letters_total"),
)
SYSTEMS = (
    ("live", "OneRec, learning online"),
    ("frozen", "the same seed, frozen"),
    ("cooccurrence", "running co-occurrence"),
    ("popularity", "decayed popularity"),
)


def _number(value: float | None, unit: str = "", digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}{unit}"


def _seed_done(samples: Samples) -> str | None:
    """How much of the seed is trained, while it is."""
    share = samples.get("trainer_seed_progress_ratio")
    return _number(share * 100, " %") if 0 < share < 1 else None


class LoopView:
    """Builds the picture of one moment out of the newest samples and those before."""

    def __init__(self) -> None:
        self._last: tuple[float, dict[str, float]] = (0.0, {})
        self._rates: dict[str, float] = {}

    def counts(self, samples: Samples) -> dict[str, float]:
        """Totals by row name; also refreshes the rates, at most once a second."""
        totals = {line.name: samples.get(line.metric, **dict(line.labels)) for line in RATES}
        now = time.monotonic()
        then, before = self._last
        if now - then >= 1.0:
            if before:
                self._rates = {name: (totals[name] - before[name]) / (now - then) for name in totals}
            self._last = (now, totals)
        return totals

    def render(self, progress: Progress) -> Group:
        """The whole picture."""
        elapsed = time.monotonic() - progress.started
        title = Text(f" {elapsed:5.0f} s   {progress.stage}", style="bold")
        loop = Text.from_markup(PICTURE)
        columns = Table.grid(padding=(0, 4))
        last = self._watched if progress.simulated else self._quality
        columns.add_row(self._flow(progress.samples), self._model(progress.samples), last(progress.samples))
        return Group(title, Panel(loop, border_style="dim"), columns)

    def _flow(self, samples: Samples) -> Table:
        table = Table("flow", "total", "per s", box=None, header_style="bold")
        for name, total in self.counts(samples).items():
            table.add_row(name, _number(total), _number(self._rates.get(name, 0.0)))
        return table

    def _model(self, samples: Samples) -> Table:
        table = Table("model", "", box=None, header_style="bold")
        seed = _seed_done(samples)
        if seed is not None:
            table.add_row("seed training", seed)
        table.add_row("version served", _number(samples.get("inference_worker_version", job="worker")))
        table.add_row("next-token loss", _number(samples.get("trainer_loss", objective="next_token"), digits=3))
        freshness = samples.quantile("inference_worker_freshness_seconds", 0.5, job="worker")
        table.add_row("action → served weights", _number(freshness, " s", 1))
        latency = samples.quantile("inference_worker_latency_seconds", 0.5, job="worker")
        table.add_row("answer, median", _number(latency and latency * 1000, " ms"))
        for which in ("chosen", "rejected"):
            count = samples.get("inference_sampler_reward_count", which=which)
            mean = samples.get("inference_sampler_reward_sum", which=which) / count if count else None
            table.add_row(f"reward {which}", _number(mean, digits=3))
        return table

    def _quality(self, samples: Samples) -> Table:
        visits = samples.get("evaluation_visits")
        table = Table(f"{visits:,.0f} visits, tested before learned", "HR@10", box=None, header_style="bold")
        rates = samples.by("evaluation_hit_rate", "system")
        for key, words in SYSTEMS:
            table.add_row(words, _number(rates.get(key), digits=4))
        return table

    def _watched(self, samples: Samples) -> Table:
        visits = samples.get("evaluation_simulated_visits")
        table = Table(f"{visits:,.0f} simulated visits", "of each", box=None, header_style="bold")
        table.add_row("watch time", _number(samples.get("evaluation_simulated_watch_seconds"), " s", 1))
        table.add_row("items", _number(samples.get("evaluation_simulated_items"), digits=2))
        return table


@contextmanager
def shown(progress: Progress, console: Console) -> Iterator[None]:
    """Show the progress while the body runs: a live picture on a terminal, else a line every ten seconds."""
    view = LoopView()
    if not console.is_terminal:
        progress.on_change = PlainLines(view, console)
        yield
        return
    with Live(view.render(progress), console=console, refresh_per_second=REFRESH_PER_S, transient=True) as live:
        progress.on_change = lambda now: live.update(view.render(now))
        yield


class PlainLines:
    """Prints a line when the stage changes and every ten seconds."""

    def __init__(self, view: LoopView, console: Console) -> None:
        self._view, self._console, self._spoke, self._stage = view, console, 0.0, ""

    def __call__(self, progress: Progress) -> None:
        """Take notice of a change."""
        now = time.monotonic()
        totals = self._view.counts(progress.samples)
        if progress.stage != self._stage or now - self._spoke >= PLAIN_EVERY_S:
            self._spoke, self._stage = now, progress.stage
            seed = _seed_done(progress.samples)
            told = [] if seed is None else [seed]
            told += [f"{name} {total:,.0f}" for name, total in totals.items() if total]
            line = f"{now - progress.started:5.0f} s  {progress.stage}"
            self._console.print(f"{line}: {', '.join(told)}" if told else line, soft_wrap=True)
