"""The study's figures from the files of its systems: JSON, the tables of docs/paper.md, and the plot."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.baselines.running import COMBINED, COOCCURRENCE, POPULARITY
from evaluation.narrowness import NARROW, share_of_most
from evaluation.pages import grid, put, short
from evaluation.streaming.protocol import (
    BEGIN_MS,
    CHOSEN,
    DAILY,
    DAY_MS,
    FROZEN,
    FULL,
    INTERVALS_MS,
    ONLINE,
    WITH_COUNTS,
    WITH_POPULARITY,
    Form,
    described,
)
from evaluation.streaming.run import COUNTS, FIRST, REORDERED, STREAM, VISITS
from evaluation.streaming.study import NEVER_MS, POWERS
from onerec.errors import DependencyMissingError

SYSTEMS = (WITH_COUNTS, WITH_POPULARITY, *INTERVALS_MS, DAILY, FROZEN, CHOSEN, COMBINED, COOCCURRENCE, POPULARITY)
OURS = {WITH_COUNTS: "online_counts_minus", ONLINE: "online_minus"}
"""What the others are compared with, and the key of the differences."""
METRICS = ("hit", "ndcg")
KINDS = (*METRICS, FIRST)
"""Of columns in the files; those of before it was kept have no FIRST."""
NAMES = {"hit": "hit_rate_at_10", "ndcg": "ndcg_at_10"}
BEGIN, END = "<!-- streaming -->\n", "<!-- /streaming -->\n"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """By system the scores of each seed [seeds, V]; counts have one row."""

    begin_ms: NDArray[np.int64]
    hit: dict[str, Floats]
    ndcg: dict[str, Floats]
    seeds: list[int]
    origins: list[dict[str, Any]]
    chosen: dict[str, list[Any]]
    """By system what was chosen on the visits before the report, one entry for each seed."""
    first: dict[str, Floats]
    """By system what was ranked first, as leaves [seeds, V]."""

    def of(self, metric: str) -> dict[str, Floats]:
        """One metric."""
        found: dict[str, Floats] = getattr(self, metric)
        return found


def read(place: Path, form: Form, until_ms: int = NEVER_MS) -> Measured:
    """The files of a folder, of the visits that are reported and begin before `until_ms`.

    Raises DependencyMissingError where it has no seed.
    """
    seeds = sorted(int(path.stem.split(".")[1]) for path in place.glob(f"{STREAM}.*.npz"))
    if not seeds:
        raise DependencyMissingError(f"{place} holds no seed.", "Run `python -m evaluation streaming` first.")
    names = (COUNTS, f"{STREAM}.*", f"{REORDERED}.*", "daily-batch.*")
    columns: dict[str, dict[str, list[Floats]]] = {kind: {} for kind in KINDS}
    origins, chosen = [], dict[str, list[Any]]()
    with np.load(place / f"{VISITS}.npz") as file:
        begin_ms = file["begin_ms"]
    early, told = begin_ms < form.from_ms, (begin_ms >= form.from_ms) & (begin_ms < until_ms)
    for path in (path for name in names for path in sorted(place.glob(f"{name}.npz"))):
        with np.load(path) as file:
            origins.append(json.loads(str(file["origin"])))
            for system, own in origins[-1]["chosen"].items():
                chosen.setdefault(system, []).append(own)
            scores = {name: file[name].astype(np.float64) for name in file.files if name.endswith(KINDS)}
        if path.stem == COUNTS:
            _choose_counts(scores, chosen, early)
        for name, values in scores.items():
            system, _, kind = name.rpartition("/")
            columns[kind].setdefault(system, []).append(values[told])
    stacked = {kind: {system: np.stack(rows) for system, rows in own.items()} for kind, own in columns.items()}
    return Measured(begin_ms[told], stacked["hit"], stacked["ndcg"], seeds, origins, chosen, stacked[FIRST])


def _choose_counts(scores: dict[str, Floats], chosen: dict[str, list[Any]], early: NDArray[np.bool_]) -> None:
    """Add the power of popularity that was best before the report as a system of its own."""
    before = {power: _mean_of(scores[f"{name}/ndcg"][early]) for power, name in POWERS.items()}
    best = max(before, key=lambda power: before[power])
    chosen[CHOSEN] = [{"popularity": best, "ndcg_before": {f"{power:g}": ndcg for power, ndcg in before.items()}}]
    for kind in KINDS:
        if (name := f"{POWERS[best]}/{kind}") in scores:
            scores[f"{CHOSEN}/{kind}"] = scores[name]


def _mean_of(values: Floats) -> float:
    return round(float(values.mean()), 5) if len(values) else 0.0


def summarise(place: Path, form: Form, until_ms: int = NEVER_MS) -> dict[str, Any]:
    """The figures of a form's folder, of the visits that begin before `until_ms`: the day an unfinished run is at."""
    measured = read(place, form, until_ms)
    systems = [system for system in SYSTEMS if system in measured.hit]
    return {
        "protocol": described(form),
        "unfinished_until": _date(until_ms) if until_ms < form.end_ms else None,
        "seeds": measured.seeds,
        "seeds_trained": [json.loads(path.read_text()) for path in sorted(place.glob("seed.*.json"))],
        "commits": sorted({origin["commit"] for origin in measured.origins}),
        "machine": measured.origins[0]["machine"],
        "minutes": {"all": round(sum(origin["seconds"] for origin in measured.origins) / 60, 1)},
        "visits": len(measured.begin_ms),
        "systems": {
            system: {NAMES[metric]: _spread(measured.of(metric)[system]) for metric in METRICS}
            | _narrow(measured, system)
            for system in systems
        },
        "chosen_before": measured.chosen,
        **{
            key: {
                system: {NAMES[metric]: paired(measured.of(metric), ours, system) for metric in METRICS}
                for system in systems
                if system != ours
            }
            for ours, key in OURS.items()
            if ours in systems
        },
        "by_day": _by_day(measured, systems),
    }


def _narrow(measured: Measured, system: str) -> dict[str, float]:
    """What five items have of first places, mean of the seeds."""
    if system not in measured.first:
        return {}
    return {NARROW: round(float(np.mean([share_of_most(own[own >= 0]) for own in measured.first[system]])), 4)}


def _spread(scores: Floats) -> dict[str, float]:
    """Mean over visits and seeds, its standard error over visits, and the deviation between seeds."""
    means, visits = scores.mean(1), scores.mean(0)
    return {
        "mean": round(float(means.mean()), 5),
        "standard_error": round(float(visits.std(ddof=1) / math.sqrt(len(visits))), 5),
        "deviation_over_seeds": round(float(means.std(ddof=1)), 5) if len(means) > 1 else 0.0,
    }


def paired(scores: dict[str, Floats], one: str, other: str) -> dict[str, float]:
    """Mean difference on the same visits, each averaged over seeds, and its standard error over visits."""
    difference = scores[one].mean(0) - scores[other].mean(0)
    return {
        "difference": round(float(difference.mean()), 5),
        "standard_error": round(float(difference.std(ddof=1) / math.sqrt(len(difference))), 5),
    }


def _by_day(measured: Measured, systems: list[str]) -> list[dict[str, Any]]:
    days = (measured.begin_ms - BEGIN_MS) // DAY_MS
    found = []
    for day in np.unique(days).tolist():
        rows = days == day
        rates = {system: round(float(measured.hit[system][:, rows].mean()), 5) for system in systems}
        found.append({"day": _date(BEGIN_MS + day * DAY_MS), "visits": int(rows.sum()), "hit_rate_at_10": rates})
    return found


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()


def table(summary: dict[str, Any]) -> str:
    """Markdown: every system, and what ours are better by on the same visits."""
    head = ["system", "HitRate@10", "NDCG@10"]
    ours = {name: key for name, key in OURS.items() if key in summary}
    narrow = all(NARROW in figures for figures in summary["systems"].values())
    head += ["five items of first places"] if narrow else []
    head += [f"{name} minus it, {metric}" for name in ours for metric in ("HitRate@10", "NDCG@10")]
    rows = list[list[str]]()
    for system, figures in summary["systems"].items():
        cells = [_mean(figures[name]) for name in NAMES.values()]
        cells += [f"{figures[NARROW]:.0%}"] if narrow else []
        for key in ours.values():
            against = summary[key].get(system)
            cells += [_difference(against[name]) for name in NAMES.values()] if against else ["", ""]
        rows.append([system, *cells])
    return grid(head, rows)


def choices(summary: dict[str, Any]) -> str:
    """What was chosen before the report, as sentences."""
    found = summary["chosen_before"]
    weights = []
    for system in (WITH_POPULARITY, WITH_COUNTS):
        own = ", ".join(f"{one['popularity']:g} and {one['cooccurrence']:g}" for one in found.get(system, ()))
        weights += [f"`{system}`: {own}"] if own else []
    counts = "".join(f" `{CHOSEN}`: popularity to the power {one['popularity']:g}." for one in found.get(CHOSEN, ()))
    told = f"weights of popularity and of co-occurrence for each seed: {'; '.join(weights)}." if weights else ""
    return f"Chosen on the visits before the report: {told}{counts}\n"


def day_table(summary: dict[str, Any]) -> str:
    """Markdown: HitRate@10 by day."""
    wanted = (WITH_COUNTS, ONLINE, DAILY, FROZEN, CHOSEN, COMBINED, COOCCURRENCE)
    systems = [system for system in wanted if system in summary["systems"]]
    rows = list[list[str]]()
    for row in summary["by_day"]:
        rates = [f"{row['hit_rate_at_10'][system]:.4f}" for system in systems]
        rows.append([row["day"], str(row["visits"]), *rates])
    return grid(["day", "visits", *systems], rows)


def write_paper(paper: Path, summary: dict[str, Any], plot: str | None) -> None:
    """Put protocol, tables and plot between their marks in docs/paper.md; makes the file where there is none."""
    form, where = summary["protocol"], summary["machine"]
    picture = f"\n![HitRate@10 by synchronisation interval and by day]({plot})\n" if plot else ""
    text = textwrap.dedent(form["text"]).strip()
    notes = _quick(form) + _unfinished(summary)
    command = f"python -m evaluation streaming {_option(summary)}--paper"
    section = (
        f"{BEGIN}## Learning from the stream\n\nMade by `{command}`; form "
        f"`{form['name']}`: one user of {form['users_of']}, {summary['visits']:,} visits, seeds "
        f"{', '.join(map(str, summary['seeds']))}, a seed of {form['samples']:,} samples, commit "
        f"{short(summary['commits'])}, on {where['cpu']}.\n\n{notes}{text}\n\n"
        f"{table(summary)}\n{choices(summary)}{picture}\n{day_table(summary)}{END}"
    )
    put(paper, section, BEGIN, END)


def _option(summary: dict[str, Any]) -> str:
    name, power = summary["protocol"]["name"], summary["protocol"]["recipe"].get("frequency_power", 0.0)
    found = "" if name == FULL.name else f"--{name} "
    found += f"--frequency-power {power:g} " if power else ""
    return found + ("" if DAILY in summary["systems"] else "--without-daily ")


def _quick(form: dict[str, Any]) -> str:
    """What the quick form is."""
    if form["users_of"] == FULL.users_of:
        return ""
    return (
        "These are figures of the quick form: few users and a seed trained for half a minute. They show that the study "
        "runs, not which system is better.\n\n"
    )


def _unfinished(summary: dict[str, Any]) -> str:
    until = summary["unfinished_until"]
    missing = [f"`{system}`" for system in (DAILY, WITH_POPULARITY, WITH_COUNTS) if system not in summary["systems"]]
    if not until and missing:
        return f"Not run here: {', '.join(missing)}.\n\n"
    return (
        f"The run had not ended: visits are those before {until}, and there is no daily batch yet.\n\n" if until else ""
    )


def _mean(figure: dict[str, float]) -> str:
    seeds = f" (seeds ± {figure['deviation_over_seeds']:.4f})" if figure["deviation_over_seeds"] else ""
    return f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}{seeds}"


def _difference(figure: dict[str, float]) -> str:
    return f"{figure['difference']:+.4f} ± {figure['standard_error']:.4f}"
