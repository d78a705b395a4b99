"""How the arms of an A/B run go over the run: what is watched and how different it is, quarter by quarter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.ab.protocol import ARMS
from evaluation.ab.users import EXPECTED, Columns, Floats, Users, interval, joined
from evaluation.narrowness import NARROW, share_of_most
from evaluation.pages import grid
from evaluation.pictures import picture, save

QUARTERS = 4
DIFFERENT = "different_first_items"
FIRST = "first_item"
"""Column of the visits; runs of before it was kept have none."""


def course(parts: Sequence[Columns]) -> dict[str, list[dict[str, Any]]]:
    """By arm and quarter of the run the expected watch time a session [mean, low, high], over the users of all seeds.

    With the item that was shown first also, as means over seeds, how many different ones there were and the share of
    the five most shown. The first quarter is the one that the table leaves out.
    """
    random = np.random.default_rng(2)
    return {arm: [_quarter(parts, number, at, random) for at in range(QUARTERS)] for number, arm in enumerate(ARMS)}


def _quarter(parts: Sequence[Columns], arm: int, at: int, random: np.random.Generator) -> dict[str, Any]:
    chosen = [_within(part, at) & (part["arm"] == arm) for part in parts]
    users = Users.of(joined(parts, chosen), arm)
    found: dict[str, Any] = {
        EXPECTED: [round(users.mean(EXPECTED), 4), *interval(users.bootstrap(EXPECTED, random))],
        "sessions": int(users.visits.sum()),
    }
    if all(FIRST in part for part in parts):
        firsts = [part[FIRST][own] for part, own in zip(parts, chosen, strict=True)]
        found[DIFFERENT] = round(float(np.mean([len(np.unique(items)) for items in firsts])), 1)
        found[NARROW] = round(float(np.mean([share_of_most(items) for items in firsts])), 4)
    return found


def _within(part: Columns, at: int) -> Any:
    begin_ms, end_ms = part["span"].tolist()
    share: Floats = (part["begin_ms"] - begin_ms) / (end_ms - begin_ms)
    return np.clip((QUARTERS * share).astype(np.int64), 0, QUARTERS - 1) == at


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a line an arm, watch times and different first items by quarter."""
    names = ["first", "second", "third", "fourth"]
    wide = all(DIFFERENT in quarter for quarters in found.values() for quarter in quarters)
    head = ["arm", *(f"expected, s: {name}" for name in names), *(f"first items: {name}" for name in names if wide)]
    rows = []
    for arm, quarters in found.items():
        times = ["{:.2f} ({:.2f} to {:.2f})".format(*quarter[EXPECTED]) for quarter in quarters]
        rows.append([arm, *times, *(f"{quarter[DIFFERENT]:.0f}" for quarter in quarters if wide)])
    return grid(head, rows)


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Watch time by quarter with its intervals, and the share of the five most shown, as PNG."""
    figure, ((watched, narrow),) = picture(1, 2, (4.6, 3.4))
    places = np.arange(1, QUARTERS + 1)
    for number, (arm, quarters) in enumerate(found.items()):
        mean, low, high = np.array([quarter[EXPECTED] for quarter in quarters]).T
        apart = places + 0.06 * (number - len(found) / 2)
        watched.errorbar(apart, mean, [mean - low, high - mean], marker="o", capsize=2, label=arm)
        if all(NARROW in quarter for quarter in quarters):
            narrow.plot(places, [100 * quarter[NARROW] for quarter in quarters], marker="o", label=arm)
    watched.set_ylabel("expected watch time a session, s")
    narrow.set_ylabel("five most shown of first items, %")
    watched.legend(fontsize="small")
    for axes in (watched, narrow):
        axes.set(xlabel="quarter of the run", xticks=places)
    save(figure, path)
