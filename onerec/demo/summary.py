"""The end of the demo: a page that a person understands, from the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table

AUDITED = ("lost", "duplicated", "wrong")


def _pairs(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title, "", box=None, header_style="bold", pad_edge=False)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _flow(report: Mapping[str, Any]) -> Table:
    return _pairs(
        "What flowed",
        [
            (
                "exposures simulated" if "simulated" in report else "exposures replayed",
                f"{report['events_produced']:,}",
            ),
            ("sessions joined", f"{report['sessions']:,}"),
            ("sessions learned from", f"{report['sessions_trained']:,}"),
            ("lost / duplicated", f"{report['lost']} / {report['duplicated']}"),
            ("audit: lost / double / wrong", " / ".join(str(report["audit"][name]) for name in AUDITED)),
            ("requests → answers", f"{report['requests']:,} → {report['recommendations']:,}"),
            ("unanswered", f"{report['unanswered']}"),
            ("invalid / repeated items", f"{report['invalid_items']} / {report['duplicate_items_in_session']}"),
            ("refused to dead-letters", f"{report['dead_letters']:,}"),
        ],
    )


def _speed(report: Mapping[str, Any]) -> Table:
    latency = report["request_latency_ms"]
    return _pairs(
        "How fast",
        [
            ("action → served weights", _seconds(report["freshness_s"])),
            ("complete session → served weights", _seconds(report["sample_freshness_s"])),
            ("request → answer", f"p50 {_or_dash(latency['p50'], '.0f')} ms, p99 {_or_dash(latency['p99'], '.0f')} ms"),
            ("versions published / swaps", f"{report['versions_published']} / {report['swaps']}"),
            (f"version {report['reproduced']['version']}, made again", _bits(report["reproduced"])),
            ("first recommendation after", f"{report['first_recommendation_s']:.0f} s"),
            ("all together", f"{report['wall_s']:.0f} s, {report['peak_rss_mb']:,} MB at the peak"),
            ("broker", str(report["broker"])),
        ],
    )


def _learning(report: Mapping[str, Any]) -> Table:
    loss, reward = report["loss"], report["reward"]
    rows = [
        ("next-token loss", f"{_or_dash(loss['first'], '.3f')} → {_or_dash(loss['last'], '.3f')}"),
        ("preference pairs made / learned", f"{report['preference_pairs']:,} / {report['pairs_trained']:,}"),
        (
            "watch time expected of chosen / rejected",
            f"{_or_dash(reward['chosen_swt_mean'], '.3f')} / {_or_dash(reward['rejected_swt_mean'], '.3f')} of 1",
        ),
        ("", ""),
        *(_simulated(report["simulated"]) if "simulated" in report else _foretold(report["prequential"])),
    ]
    return _pairs("What it learned", rows)


def _foretold(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"HitRate@10 of {quality['visits']:,} visits", "tested before learned from"),
        ("  OneRec, learning online", _or_dash(quality["hit_rate_at_10"], ".4f")),
        ("  the same seed, frozen", _or_dash(quality["frozen_hit_rate_at_10"], ".4f")),
        ("  running co-occurrence", _or_dash(quality["cooccurrence_hit_rate_at_10"], ".4f")),
        ("  decayed popularity", _or_dash(quality["popularity_hit_rate_at_10"], ".4f")),
    ]


def _simulated(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of simulated users, who only saw what OneRec showed: nothing to compare with but visits of other hours."""
    rows = [
        (f"{found['visits']:,} simulated visits", f"{found['items_per_visit']:.2f} items each"),
        ("  watch time of a visit", f"{found['watch_time_per_visit_s']:.1f} s"),
        ("  likes / follows of 1,000 items", f"{found['likes_per_1000']:.0f} / {found['follows_per_1000']:.1f}"),
    ]
    if quarters := found["by_quarter"]:
        first, last = quarters[0], quarters[-1]
        times = " → ".join("{:.1f} ± {:.1f}".format(*own["expected_watch_time_s"]) for own in (first, last))
        rows += [
            ("  first → last quarter of them", ""),
            ("    items watched long", f"{first['long_view_share']:.0%} → {last['long_view_share']:.0%}"),
            ("    watch time expected", f"{times} s"),
            ("    different items", f"{first['different_items']:,} → {last['different_items']:,}"),
        ]
    return rows


def _bits(reproduced: Mapping[str, Any]) -> str:
    return "the same bits" if reproduced["identical"] else "NOT the same bits; see logs/reproduce.log"


def _seconds(waits: Mapping[str, float | None]) -> str:
    return f"p50 {_or_dash(waits['p50'], '.1f')} s, p99 {_or_dash(waits['p99'], '.1f')} s"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def print_summary(report: Mapping[str, Any], console: Console) -> None:
    """Print the report as three tables."""
    columns = Table.grid(padding=(0, 4))
    columns.add_row(_flow(report), _learning(report))
    console.print(
        Panel(Group(columns, "", _speed(report)), title="OneRec Stream: the loop, closed", border_style="cyan")
    )
