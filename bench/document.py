"""`python -m bench.document`: writes the tables of docs/performance.md and the README's from bench.json."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import Result, number, verdict
from bench.turns import ROOT

PAGE, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
MARKED = re.compile(r"(<!-- measured:[^\n]*-->\n).*?(<!-- /measured -->)", re.DOTALL)
STAGES_MARKED = re.compile(r"(<!-- stages:[^\n]*-->\n).*?(<!-- /stages -->)", re.DOTALL)
BENCHES_MARKED = re.compile(r"(<!-- benches:[^\n]*-->\n).*?(<!-- /benches -->)", re.DOTALL)
SHOWN = {
    "decode_beam32": "decoding, batch 8, beam 32, against transformers' T5",
    "decode_beam128": "the same, beam 128",
    "decode_ctranslate2_beam32": "against CTranslate2, beam 32",
    "decode_ctranslate2_beam128": "against CTranslate2, beam 128",
    "train_dense": "training, batch 64, against transformers' T5",
    "joiner_kafkastreams": "joiner, exactly once, against Kafka Streams",
    "joiner_flink": "the same, against Flink",
    "codec": "records decoded, against fastavro",
}
"""For the README: what a user would ask first, met or not."""
WHAT = {
    "sent": "the client's linger, the broker, the worker's fetch",
    "queued": "the batch before it, and up to `max_wait_ms` for others to join",
    "prepared": "history from the local store, exclusions, tensors",
    "decoded": "encoder and beam search of the whole batch",
    "recorded": "answers as records, encoded and handed to the producer",
    "delivered": "until the broker has confirmed the answer; not part of the latency that the answer tells",
}
ABOUT = ("cpu", "flags", "cores", "memory_gb", "python", "torch", "confluent-kafka", "fastavro", "numpy")


def filled(page: str, results: Sequence[Result]) -> str:
    """The page with its marked part made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{tables(results)}{found[2]}", page)


def with_stages(page: str, results: Sequence[Result]) -> str:
    """The page with the stages of a request made anew, where `request_latency` is among the results."""
    told = [one["conditions"] for one in results if "stages_ms" in one["conditions"].get("behind_kafka", {})]
    if not told:
        return page
    table = stages(told[0])
    return STAGES_MARKED.sub(lambda found: f"{found[1]}{table}{found[2]}", page)


def stages(told: Mapping[str, Any]) -> str:
    """Where a request's time goes, stage by stage, and under which conditions that was seen."""
    behind = told["behind_kafka"]
    total_ms = sum(each["mean"] for each in behind["stages_ms"].values())
    lines = ["| stage | mean, ms | share | p99, ms | what happens |", "|---|---|---|---|---|"]
    for name, found in behind["stages_ms"].items():
        cells = (name, f"{found['mean']:.1f}", f"{found['mean'] / total_ms:.0%}", f"{found['p99']:.0f}", WHAT[name])
        lines.append(f"| {' | '.join(cells)} |")
    about = "; ".join(f"{name} {told[name]}" for name in ABOUT if name in told)
    lines += [
        "",
        f"{behind['requests']:,} requests at half of the {behind['capacity_per_s']:g} a second that one worker of "
        f"preset small answered, broker {behind['broker']}; p50 {behind['p50_ms']:.0f} ms, p99 {behind['p99_ms']:.0f} "
        f"ms from sending to the answer's writing; load average {told.get('load_average')}. {about}.",
        "",
    ]
    return "\n".join(lines)


def with_benches(page: str, results: Sequence[Result]) -> str:
    """The README with its table of benches made anew."""
    by_name = {one["name"]: one for one in results}
    lines = ["| two cores | ours | theirs | ratio |", "|---|---|---|---|"]
    for name, what in SHOWN.items():
        if one := by_name.get(name):
            lines.append(_shown(what, one["ours"], one, one["ratio"]))
            if "int8" in one["conditions"]:
                told = one["conditions"]
                lines.append(_shown("the same, ours in 8 bits", told["int8"], one, told["ratio_int8"]))
    told = results[0]["conditions"]
    about = (
        f"`make bench` on {told['cpu']} ({told['features']}); all benches: [docs/performance.md](docs/performance.md)."
    )
    table = "\n".join([*lines, "", about, ""])
    return BENCHES_MARKED.sub(lambda found: f"{found[1]}{table}{found[2]}", page)


def _shown(what: str, ours: float | None, one: Result, ratio: float | None) -> str:
    return f"| {what} | {number(ours)} {one['unit']} | {number(one['peer'])} | {number(ratio)} |"


def tables(results: Sequence[Result]) -> str:
    """All figures, what they were measured on, and what could not be measured."""
    lines = [
        "| bench | ours | peer | unit | ratio | of the limit | target | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(result) for result in results]
    told = results[0]["conditions"] if results else {}
    about = "; ".join(f"{name} {told[name]}" for name in ABOUT if name in told)
    loads = [result["conditions"].get("load_average", 0.0) for result in results]
    lines += ["", f"{about}; load average while measuring {min(loads, default=0)} to {max(loads, default=0)}."]
    if any("brief" in result["conditions"] for result in results):
        lines += ["", "**Brief run: these figures only show that the benches work.**"]
    reasons = [f"- {one['name']}: {one['conditions']['reason']}" for one in results if "reason" in one["conditions"]]
    return "\n".join([*lines, "", *(["Not measured:", "", *reasons, ""] if reasons else [])])


def _row(result: Result) -> str:
    share = result["share_of_limit"]
    cells = (
        result["name"],
        number(result["ours"]),
        number(result["peer"]),
        result["unit"],
        number(result["ratio"]),
        "" if share is None else f"{share:.0%}",
        result["target"],
        verdict(result),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Fill the pages from the file named, bench.json by default; from a single bench's object, only what is its own."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench.json"
    told = json.loads(source.read_text())
    page = PAGE.read_text()
    PAGE.write_text(with_stages(page, [told]) if isinstance(told, dict) else with_stages(filled(page, told), told))
    if isinstance(told, list):
        README.write_text(with_benches(README.read_text(), told))


if __name__ == "__main__":
    main()
