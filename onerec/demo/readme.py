"""`python -m onerec.demo.readme`: writes the README's table of what was measured from docs/demo-report.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "demo-report.json"
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- measured:[^\n]*-->\n).*?(<!-- /measured -->)", re.DOTALL)


def table(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table for users, with its conditions."""
    fresh, latency, quality, reward = (
        report[key] for key in ("freshness_s", "request_latency_ms", "prequential", "reward")
    )
    rows = [
        (
            "exposures replayed, everything on",
            f"{report['events_produced']:,} in {report['wall_s']:.0f} s, seed training included",
        ),
        ("first recommendation", f"{report['first_recommendation_s']:.0f} s after `onerec demo`"),
        ("an action → weights that learned from it serve", f"p50 {fresh['p50']:.1f} s, p99 {fresh['p99']:.1f} s"),
        ("request → answer, through Kafka", f"p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms"),
        (
            "sessions learned from; lost, duplicated",
            f"{report['sessions_trained']:,}; {report['lost']}, {report['duplicated']}",
        ),
        (
            "requests; unanswered, invalid items, repeated items",
            f"{report['requests']:,}; {report['unanswered']}, {report['invalid_items']}, "
            f"{report['duplicate_items_in_session']}",
        ),
        ("versions published, swaps without a lost request", f"{report['versions_published']}, {report['swaps']}"),
        (
            f"HitRate@10 of {quality['visits']:,} visits, tested before learned",
            f"**{quality['hit_rate_at_10']:.4f}** online; {quality['frozen_hit_rate_at_10']:.4f} the same seed frozen; "
            f"{quality['cooccurrence_hit_rate_at_10']:.4f} running co-occurrence; "
            f"{quality['popularity_hit_rate_at_10']:.4f} decayed popularity",
        ),
        (
            "reward of the preference pairs' chosen and rejected sessions",
            f"{reward['chosen_mean']:.2f}, {reward['rejected_mean']:.2f} in standard deviations of the candidates, "
            f"summed over four objectives",
        ),
        ("memory of all processes at the peak", f"{report['peak_rss_mb']:,} MB"),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    machine = report["machine"]
    caption = f"`onerec demo` on {machine['cores']} cores of {machine['cpu']}, broker {report['broker']}."
    return "\n".join(["| measured | |", "|---|---|", *lines, "", caption, ""])


def main() -> None:
    """Rewrite the marked part of the README."""
    text = MARKED.sub(lambda found: f"{found[1]}{table(json.loads(REPORT.read_text()))}{found[2]}", README.read_text())
    README.write_text(text)


if __name__ == "__main__":
    main()
