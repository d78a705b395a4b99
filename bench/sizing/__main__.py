"""`python -m bench.sizing`: from bench.json to the tables of docs/scaling.md."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.sizing.assumptions import Assumptions
from bench.sizing.figures import Figures, brief, read
from bench.sizing.plan import GpuPlan, Plan, gpus, plan, worker_rate
from bench.sizing.records import bytes_a_record
from bench.turns import ROOT
from onerec.cli.options import fail
from onerec.errors import OneRecError, SettingsError
from onerec.model.presets import ModelConfig, preset

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
PAGE = ROOT / "docs" / "scaling.md"
MARKED = re.compile(r"(<!-- sizing:[^\n]*-->\n).*?(<!-- /sizing -->)", re.DOTALL)


@app.command()
def sizing(
    rates: Annotated[list[int] | None, typer.Argument(help="Requests a second; 10k, 100k, 400k by default.")] = None,
    bench: Annotated[Path, typer.Option(help="Measured figures.")] = Path("bench.json"),
    model: Annotated[str, typer.Option(help="Preset that is served and trained on CPUs.")] = "small",
    assume: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of an assumption.")] = None,
    document: Annotated[bool, typer.Option(help="Write the tables of docs/scaling.md.")] = False,
) -> None:
    """Print the plan, what it is computed from, and what is assumed."""
    try:
        results = _results(bench)
        figures, assumptions = read(results), _assumptions(assume or [])
        config = _preset(model)
        wanted = rates or [10_000, 100_000, 400_000]
        plans = [plan(rate, config, figures, assumptions) for rate in wanted]
        accelerated = [gpus(rate, assumptions) for rate in wanted]
        text = tables(config, figures, assumptions, plans, accelerated, about(results))
        typer.echo(text)
        if document:
            PAGE.write_text(MARKED.sub(lambda found: f"{found[1]}{text}{found[2]}", PAGE.read_text()))
    except OneRecError as error:
        raise fail(error) from error


def tables(  # noqa: PLR0917 - what the page shows
    config: ModelConfig,
    figures: Figures,
    assumptions: Assumptions,
    plans: Sequence[Plan],
    accelerated: Sequence[GpuPlan],
    conditions: str,
) -> str:
    """Plans, GPUs, what one core does, bytes of records, assumptions."""
    sizes = bytes_a_record(config.history_items, config.session_items, 10)
    lines = [
        f"Preset {config.name} on CPUs, processes of one core each:",
        "",
        "| requests/s | events/s | sessions/s | MB/s in | brokers | partitions | joiners | workers | trainer's ranks |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {one.requests_per_s:,} | {one.events_per_s:,.0f} | {one.sessions_per_s:,.0f} "
            f"| {one.ingress_mb_per_s:,.0f} | {one.brokers:,} | {one.partitions:,} | {one.joiners:,} "
            f"| {one.workers:,} | {one.trainer_ranks:,} |"
            for one in plans
        ),
        "",
        "The paper's model (preset 1b, beam 128) on GPUs, by operations:",
        "",
        "| requests/s | TFLOP of a request | GPUs that serve | TFLOP of a session learned | GPUs that train |",
        "|---|---|---|---|---|",
        *(
            f"| {one.requests_per_s:,} | {one.serving_tflop:.3f} | {one.serving:,} | {one.training_tflop:.3f} "
            f"| {one.training:,} |"
            for one in accelerated
        ),
        "",
        f"What one core does ({conditions}):",
        "",
        "| figure | value | from |",
        "|---|---|---|",
        *(f"| {name} | {getattr(figures, name):,.4g} | {source} |" for name, source in figures.sources.items()),
        f"| requests/s of a worker of preset {config.name} | {worker_rate(config, figures):,.4g} | the above |",
        "",
        "Bytes of a record, uncompressed, key and frame included: "
        + ", ".join(f"{topic} {size:,}" for topic, size in sizes.items())
        + ".",
        "",
        "| assumed | value | because |",
        "|---|---|---|",
        *(f"| {name} | {value:g} | {why} |" for name, (value, why) in assumptions.why().items()),
        "",
    ]
    return "\n".join(lines)


def about(results: Sequence[Mapping[str, Any]]) -> str:
    """Which machine, and whether its figures are any."""
    told = results[0]["conditions"]
    note = ", **brief run: figures that show no more than that the benches work**" if brief(results) else ""
    return f"{told.get('cpu', 'unknown processor')}{note}"


def _results(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        raise SettingsError(f"There is no {file}.", "`make bench` writes it.")
    try:
        results: list[dict[str, Any]] = json.loads(file.read_text())
    except ValueError as error:
        raise SettingsError(f"{file} is no list of results: {error}.", "`make bench` writes it.") from error
    return results


def _assumptions(texts: Sequence[str]) -> Assumptions:
    known, changes = Assumptions().why(), {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise SettingsError(f"There is no assumption {name!r}.", f"Choose among {', '.join(known)}.")
        try:
            changes[name] = float(value)
        except ValueError as error:
            raise SettingsError(f"{text!r} has no number.", "Write NAME=VALUE.") from error
        if changes[name] <= 0:
            raise SettingsError(f"{text!r} must be above 0.", "Write NAME=VALUE.")
    return dataclasses.replace(Assumptions(), **changes)


def _preset(name: str) -> ModelConfig:
    try:
        return preset(name)
    except ValueError as error:
        raise SettingsError(str(error), "Choose one of them.") from error


if __name__ == "__main__":
    app(prog_name="python -m bench.sizing")
