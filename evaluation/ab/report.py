"""Watch time per session by arm with intervals by a bootstrap over users, as JSON and as part of docs/paper.md."""

from __future__ import annotations

import json
import logging
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.ab import course
from evaluation.ab.course import FIRST
from evaluation.ab.protocol import ARMS, BURN_IN, COMPARED, FULL, Form, described
from evaluation.ab.system import VISITS, run_trial
from evaluation.ab.users import COUNTED, MEASURES, Columns, Users, interval, joined
from evaluation.narrowness import NARROW, share_of_most
from evaluation.pages import grid, put, short
from evaluation.table1.origin import ROOT, commit
from onerec.machine import machine

LOG = logging.getLogger(__name__)
DEFAULT_FOLDER = ROOT / "runs" / "ab"
BEGIN, END = "<!-- ab -->\n", "<!-- /ab -->\n"


def run(form: Form, seeds: Sequence[int], folder: Path = DEFAULT_FOLDER) -> dict[str, Any]:
    """The result over the seeds; a seed whose visits are there is not run again."""
    parts, systems, commits = [], [], set[str]()
    for seed in seeds:
        place = folder / f"{form.name}-{form.digest()}-{seed}"
        done = place / "done.json"
        if not done.is_file():
            started_s = time.monotonic()
            found = run_trial(form, seed, place)
            minutes = round((time.monotonic() - started_s) / 60, 1)
            origin = {"system": found | {"minutes": minutes}, "commit": commit(), "machine": machine()}
            done.write_text(json.dumps(origin, indent=2) + "\n")
        origin = json.loads(done.read_text())
        drive = json.loads((place / f"{VISITS}.json").read_text())
        systems.append(origin["system"] | {"seed": seed, "drive": drive})
        commits.add(origin["commit"])
        with np.load(place / f"{VISITS}.npz") as file:
            parts.append({name: file[name] for name in file.files} | {"seed": seed})
    return {
        "protocol": described(form),
        "seeds": list(seeds),
        "commits": sorted(commits),
        "machine": machine(),
        **summarised(parts),
        "systems": systems,
    }


def summarised(parts: Sequence[Columns]) -> dict[str, Any]:
    """Arms and uplifts of the visits of all seeds; users of different seeds are different ones."""
    visits = joined(parts, [_late(part) for part in parts])
    narrow = narrowness(parts)
    by_arm = {arm: Users.of(visits, number) for number, arm in enumerate(ARMS)}
    random = np.random.default_rng(1)
    drawn = {arm: {name: own.bootstrap(name, random) for name in MEASURES} for arm, own in by_arm.items()}
    arms = {
        arm: {name: [round(own.mean(name), 4), *interval(drawn[arm][name])] for name in MEASURES}
        | {name: round(float(own.totals[name].sum() / own.visits.sum()), 4) for name in COUNTED}
        | {"sessions": int(own.visits.sum()), "users": len(own.visits)}
        | ({NARROW: narrow[arm]} if narrow else {})
        for arm, own in by_arm.items()
    }
    uplift = {
        f"{one} over {other}": {
            name: [
                round(by_arm[one].mean(name) / by_arm[other].mean(name) - 1, 5),
                *interval(drawn[one][name] / drawn[other][name] - 1),
            ]
            for name in MEASURES
        }
        for one, other in COMPARED
    }
    return {"arms": arms, "uplift": uplift, "course": course.course(parts)}


def narrowness(parts: Sequence[Columns]) -> dict[str, float]:
    """By arm the share that its five most shown first items have in the visits after the burn-in, mean of the seeds."""
    if any(FIRST not in part for part in parts):
        return {}
    shares: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for part in parts:
        late = _late(part)
        for number, arm in enumerate(ARMS):
            shares[arm].append(share_of_most(part[FIRST][late & (part["arm"] == number)]))
    return {arm: round(float(np.mean(own)), 4) for arm, own in shares.items()}


def _late(part: Columns) -> NDArray[np.bool_]:
    begin_ms, end_ms = part["span"].tolist()
    found: NDArray[np.bool_] = part["begin_ms"] >= begin_ms + BURN_IN * (end_ms - begin_ms)
    return found


def table(result: dict[str, Any]) -> str:
    """Markdown: arms, then uplifts."""
    head = ["arm", "watch time a session, s", "expected, s", "items", "likes", "follows", "sessions", "users"]
    narrow = all(NARROW in own for own in result["arms"].values())
    head += ["five most shown"] if narrow else []
    arms, uplifts = [], []
    for arm, own in result["arms"].items():
        times = [_with_interval(own[name], ".2f") for name in MEASURES]
        counts = [f"{own[name]:.4f}" for name in COUNTED]
        shown = [f"{own[NARROW]:.0%}"] if narrow else []
        arms.append([arm, *times, *counts, f"{own['sessions']:,}", f"{own['users']:,}", *shown])
    for pair, own in result["uplift"].items():
        uplifts.append([pair, *(_with_interval(own[name], "+.1%") for name in MEASURES)])
    return (
        f"{grid(head, arms)}\n{grid(['uplift', 'watch time', 'expected'], uplifts)}\n{course.table(result['course'])}"
    )


def write_paper(paper: Path, result: dict[str, Any], image: Path) -> None:
    """Put protocol, tables and picture between their marks in docs/paper.md; makes the file where there is none."""
    form, where = result["protocol"], result["machine"]
    section = (
        f"{BEGIN}## Closed loop: A/B with simulated users\n\nMade by `python -m evaluation ab {_option(form)}--paper`; "
        f"form `{form['name']}`: {form['users'] or 'all held-out'} users, {form['hours']:g} hours of event time, seeds "
        f"{', '.join(map(str, result['seeds']))}, commit {short(result['commits'])}, on "
        f"{where['cpu']}.\n\n{_less(form)}{textwrap.dedent(form['text']).strip()}\n\n{table(result)}\n"
        f"![By quarter of the run](../evaluation/results/{image.name})\n\n{_running(result['systems'])}{END}"
    )
    put(paper, section, BEGIN, END)


def _option(form: dict[str, Any]) -> str:
    named = "" if form["name"] == FULL.name else f"--{form['name']} "
    for setting in ("preference_weight", "frequency_power"):
        if (value := form[setting]) != getattr(FULL, setting):
            named += f"--{setting.replace('_', '-')} {value:g} "
    return named


def _less(form: dict[str, Any]) -> str:
    """What a smaller form is."""
    if form["name"] == FULL.name:
        return ""
    full = {name: "all" if value is None else value for name, value in asdict(FULL).items()}
    less = [
        f"{name.replace('_', ' ')} {own} instead of {full[name]}"
        for name in asdict(FULL)
        if name != "name" and (own := form[name]) != full[name]
    ]
    return (
        f"These are figures of the {form['name']} form: they show that the loop runs with all arms at once, and which "
        "arm is better only as far as the intervals say. "
        f"Against the full form: {', '.join(less)}.\n\n"
    )


def _running(systems: Sequence[dict[str, Any]]) -> str:
    """What became of the records, seed by seed."""
    lines = []
    for one in systems:
        drive, letters = one["drive"], one["dead_letters"]
        refused = ", ".join(f"{count} {reason}" for reason, count in letters.items()) or "none"
        lines.append(
            f"Seed {one['seed']}: {drive['records']['requests']:,} requests, {drive['unanswered']} unanswered, median "
            f"latency {drive['latency_ms_p50']:.0f} ms; {one['pairs']['made']:.0f} preference pairs made, "
            f"{one['pairs']['learned']:.0f} learned from; dead letters: {refused}; {one['minutes']:g} minutes.\n"
        )
    return "\n".join(lines)


def _with_interval(figure: list[float], form: str) -> str:
    mean, low, high = (format(value, form) for value in figure)
    return f"{mean} ({low} to {high})"
