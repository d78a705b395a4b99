"""Simulated users: the model of them, the closed loop, the A/B run and its services."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evaluation.ab.protocol import FORMS
from evaluation.cli.options import seeds_of
from onerec.cli.options import Config, fail, read_settings
from onerec.errors import OneRecError
from onerec.followers import ports_of
from onerec.service import Stop, configure_logging, run_service


class SimulatorTask(StrEnum):
    """What to do with the simulated users."""

    FIT = "fit"
    CHECK = "check"


def simulator(
    task: Annotated[SimulatorTask, typer.Argument(help="fit prints coefficients; check fits, then checks.")],
    quick: Annotated[bool, typer.Option("--quick", help="On 1,500 users of each half, in seconds.")] = False,
    out: Annotated[Path | None, typer.Option(help="evaluation/results/simulator[-quick].json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write tables and plot into docs/paper.md, too.")] = False,
) -> None:
    """Users as a model, fitted on one half of KuaiRand-Pure's users and checked on the other."""
    from evaluation.files import write_json  # noqa: PLC0415
    from evaluation.pages import PAPER, RESULTS  # noqa: PLC0415
    from evaluation.simulator import check, page  # noqa: PLC0415 - loads torch
    from evaluation.simulator.fit import fit_on_kuairand  # noqa: PLC0415

    configure_logging("evaluation")
    try:
        if task is SimulatorTask.FIT:
            fitted, *_ = fit_on_kuairand(check.QUICK_USERS if quick else None)
            typer.echo(json.dumps(check.coefficients(fitted), indent=2))
            return
        result = check.run(quick)
        file = out or RESULTS / ("simulator-quick.json" if quick else "simulator.json")
        write_json(file, result)
        if paper:
            page.draw(result, file.with_suffix(".png"))
            page.write_paper(PAPER, result, file.with_suffix(".png"))
    except OneRecError as error:
        raise fail(error) from error
    typer.echo(check.summary(result))


def simulate(
    *,
    users: Annotated[
        int | None, typer.Option(min=1, help="So many of the users not fitted on; all by default.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.1, help="Of event time.")] = 48.0,
    exposures: Annotated[int | None, typer.Option(min=1, help="End once so many items have been shown.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that the users do.")] = 1,
    summary: Annotated[Path | None, typer.Option(help="Write what was sent to this file as JSON.")] = None,
    config: Config = None,
) -> None:
    """Simulated users ask a running system, look at what it recommends and act on it: a closed loop through Kafka."""
    settings = read_settings(config)
    from evaluation.simulator.live import Options, run_simulate  # noqa: PLC0415 - loads torch

    options = Options(users, hours, exposures, seed, summary)

    def body(stop: Stop) -> None:
        run_simulate(settings, options, stop)

    raise typer.Exit(run_service("simulator", settings, body))


def ab(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer users and half a day, in minutes.")] = False,
    short: Annotated[bool, typer.Option("--short", help="Half of the users and a day, in about ten minutes.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1",
    pull: Annotated[
        float | None, typer.Option("--preference-weight", min=0, help="Of pairs in training, in place of the form's.")
    ] = None,
    power: Annotated[
        float | None,
        typer.Option("--frequency-power", min=0, max=1, help="Of both trainers: less weight of what is shown often."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="evaluation/results/ab[-FORM][-weight-W][-frequency-P].json by default.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and tables into docs/paper.md, too.")] = False,
    choose_cascade: Annotated[
        bool,
        typer.Option("--choose-cascade", help="Instead compare trainings and widths of the cascade, without Kafka."),
    ] = False,
) -> None:
    """Cascade against OneRec against OneRec with IPA in one running system, by simulated users; kept in runs/ab."""
    from evaluation.ab import course, report  # noqa: PLC0415 - loads torch
    from evaluation.files import write_json  # noqa: PLC0415
    from evaluation.pages import PAPER, RESULTS  # noqa: PLC0415

    configure_logging("evaluation")
    if choose_cascade:
        _choose_cascade(out, paper=paper)
        return
    form = FORMS["quick" if quick else "short" if short else "full"]
    if pull is not None:
        form = replace(form, preference_weight=pull)
    if power is not None:
        form = replace(form, frequency_power=power)
    parts = ["ab", *([] if form.name == "full" else [form.name]), *([] if pull is None else [f"weight-{pull:g}"])]
    parts += [] if power is None else [f"frequency-{power:g}"]
    file = out or RESULTS / f"{'-'.join(parts)}.json"
    try:
        result = report.run(form, seeds_of(seeds))
        write_json(file, result)
        if paper:
            course.draw(result["course"], file.with_suffix(".png"))
            report.write_paper(PAPER, result, file.with_suffix(".png"))
    except OneRecError as error:
        raise fail(error) from error
    typer.echo(report.table(result))


def _choose_cascade(out: Path | None, *, paper: bool) -> None:
    from evaluation.ab import choices, choices_page  # noqa: PLC0415 - loads torch
    from evaluation.files import write_json  # noqa: PLC0415
    from evaluation.pages import PAPER, RESULTS  # noqa: PLC0415

    found = choices.choose()
    write_json(out or RESULTS / "ab-choices-cascade.json", found)
    if paper:
        choices_page.write_paper(PAPER, found)
    typer.echo(choices_page.table(found))


def ab_cascade(
    form: Annotated[str, typer.Option()], seed: Annotated[int, typer.Option()] = 1, config: Config = None
) -> None:
    """The cascade as a service of an A/B run."""
    settings = read_settings(config)
    from evaluation.ab.cascade_worker import run_cascade  # noqa: PLC0415 - loads torch

    raise typer.Exit(run_service("cascade", settings, lambda stop: run_cascade(settings, FORMS[form], seed, stop)))


def ab_drive(
    form: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    seed: Annotated[int, typer.Option()] = 1,
    follower: Annotated[list[str] | None, typer.Option(help="NAME=PORT of the metrics of who must keep up.")] = None,
    config: Config = None,
) -> None:
    """The users of an A/B run."""
    settings = read_settings(config)
    from evaluation.ab.drive import run_drive  # noqa: PLC0415 - loads torch

    followers = ports_of(follower or ())
    raise typer.Exit(
        run_service(
            "drive", settings, lambda stop: run_drive(settings, FORMS[form], seed, out, stop, followers=followers)
        )
    )
