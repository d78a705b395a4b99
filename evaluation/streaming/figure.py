"""The plot of the streaming study: accuracy by synchronisation interval, and by day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.pictures import picture, save
from evaluation.streaming.protocol import CHOSEN, DAILY, FROZEN, INTERVALS_MS, ONLINE, WITH_COUNTS


def draw(summary: dict[str, Any], path: Path) -> None:
    """Write the plot as PNG. Raises DependencyMissingError without matplotlib."""
    figure, ((intervals, days),) = picture(1, 2, (5.0, 4.0))
    systems = summary["systems"]
    rates = [systems[name]["hit_rate_at_10"] for name in INTERVALS_MS]
    intervals.errorbar(
        [every_ms / 1000 for every_ms in INTERVALS_MS.values()],
        [rate["mean"] for rate in rates],
        [rate["standard_error"] for rate in rates],
        marker="o",
        capsize=3,
        label="online",
    )
    for name, style in ((WITH_COUNTS, "-"), (DAILY, "-."), (FROZEN, ":"), (CHOSEN, "--")):
        if name not in systems:
            continue
        intervals.axhline(systems[name]["hit_rate_at_10"]["mean"], linestyle=style, color="grey", label=name)
    intervals.set(xscale="log", xlabel="synchronisation interval, s", ylabel="HitRate@10")
    intervals.legend(fontsize="small")
    names = [row["day"][5:] for row in summary["by_day"]]
    for name in (WITH_COUNTS, ONLINE, DAILY, FROZEN, CHOSEN):
        if name not in systems:
            continue
        days.plot(names, [row["hit_rate_at_10"][name] for row in summary["by_day"]], marker=".", label=name)
    days.set(xlabel="day of 2022", ylabel="HitRate@10")
    days.legend(fontsize="small")
    save(figure, path)
