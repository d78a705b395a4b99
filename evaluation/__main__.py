"""`python -m evaluation COMMAND`: prequential, report, and the paper's tables; each loads only what it needs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evaluation.ab.protocol import FORMS
from onerec.cli.options import Config, fail, read_settings
from onerec.errors import OneRecError
from onerec.service import Stop, configure_logging, run_service


class Device(StrEnum):
    """Where models train."""

    CPU = "cpu"
    CUDA = "cuda"


app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def prequential(
    report: Annotated[Path | None, typer.Option(help="Write the figures to this file as JSON.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only the baselines, on the log that ships with this, without Kafka.")
    ] = False,
    events: Annotated[int | None, typer.Option(min=1, help="Offline: so many exposures; all by default.")] = None,
    config: Config = None,
) -> None:
    """Test every visit before it is learned from: live system, frozen seed and baselines on the same visits."""
    settings = read_settings(config)
    if offline:
        from evaluation.offline import run_offline  # noqa: PLC0415 - reads parquet

        configure_logging("evaluation")
        try:
            run_offline(settings, events, report)
        except OneRecError as error:
            raise fail(error) from error
        return
    from evaluation.prequential import run_prequential  # noqa: PLC0415 - loads the Kafka client

    raise typer.Exit(run_service("evaluator", settings, lambda stop: run_prequential(settings, report, stop)))


@app.command()
def report(
    out: Annotated[Path | None, typer.Option(help="Write the figures to this file; else to the terminal.")] = None,
    config: Config = None,
) -> None:
    """Sum up what the topics hold: lost and duplicated sessions, freshness, latency, validity, rewards, losses."""
    from evaluation.report import summarise  # noqa: PLC0415 - loads the Kafka client

    settings = read_settings(config)
    configure_logging("report")
    try:
        text = json.dumps(summarise(settings.kafka, settings.stream.joiner), indent=2)
    except OneRecError as error:
        raise fail(error) from error
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n")


@app.command()
def table1(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="On a slice of the users, in minutes.")] = False,
    short: Annotated[bool, typer.Option("--short", help="On 4,000 users, in less than an hour a seed.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3; the quick form takes the first by default.")] = "",
    rows: Annotated[str, typer.Option(help="Only these rows, as sasrec,onerec-l; all by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="The table as JSON: evaluation/results/table1[-quick].json.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and table into docs/paper.md, too.")] = False,
    device: Annotated[Device, typer.Option(help="Where models train; rows may come from both.")] = Device.CPU,
    processes: Annotated[int, typer.Option(min=1, help="So many rows train side by side, on one GPU too.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Then end; the same command goes on with what is missing.")
    ] = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Instead compare trainings of the generative rows before the evaluation.")
    ] = False,
) -> None:
    """The paper's Table 1 on KuaiRand-Pure; each row and seed is kept in runs/table1 and not computed again."""
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.table1 import protocol, report  # noqa: PLC0415
    from evaluation.table1.run import run  # noqa: PLC0415

    configure_logging("evaluation")
    if choose:
        _choose(device, processes, out, paper=paper)
        return
    form = protocol.QUICK if quick else protocol.SHORT if short else protocol.FULL
    chosen = [int(seed) for seed in (seeds or ("1" if quick else "1,2,3")).split(",")]
    try:
        place = run(
            form,
            chosen,
            only=rows.split(",") if rows else (),
            device=torch.device(device.value),
            processes=processes,
            minutes=minutes,
        )
        summary = report.summarise(place, form, chosen)
    except OneRecError as error:
        raise fail(error) from error
    report.write(summary, out or report.RESULTS / ("table1-quick.json" if quick else "table1.json"))
    if paper:
        report.write_paper(report.PAPER, summary)
    typer.echo(report.table(summary))


def _choose(device: Device, processes: int, out: Path | None, *, paper: bool) -> None:
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.table1 import choices, choices_page, report  # noqa: PLC0415

    try:
        found = choices.choose(device=torch.device(device.value), processes=processes)
    except OneRecError as error:
        raise fail(error) from error
    report.write(found, out or report.RESULTS / "table1-choices.json")
    if paper:
        choices_page.write_paper(report.PAPER, found)
    typer.echo(choices_page.table(found))


@app.command()
def figures(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="On a slice of the users, in minutes.")] = False,
    short: Annotated[bool, typer.Option("--short", help="On 4,000 users, in less than an hour a seed.")] = False,
    only: Annotated[str, typer.Option(help="Only these of 4, 5 and 6, as 4,6; all by default.")] = "4,5,6",
    out: Annotated[Path | None, typer.Option(help="Folder of JSON and PNG; evaluation/results by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write the figures into docs/paper.md, too.")] = False,
    device: Annotated[Device, typer.Option(help="Where models train.")] = Device.CPU,
) -> None:
    """The paper's Figures 4, 5 and 6; each point is kept in runs/figures and not computed again."""
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.figures import forms, page, plot  # noqa: PLC0415
    from evaluation.figures.run import run  # noqa: PLC0415
    from evaluation.table1 import report  # noqa: PLC0415

    configure_logging("evaluation")
    form = forms.QUICK if quick else forms.SHORT if short else forms.FULL
    folder, suffix = out or report.RESULTS, "-quick" if quick else ""
    try:
        found = run(form, only=only.split(","), device=torch.device(device.value))
        pictures = plot.draw(found, folder, suffix)
    except OneRecError as error:
        raise fail(error) from error
    report.write(found, folder / f"figures{suffix}.json")
    if paper:
        page.write_paper(report.PAPER, found, pictures)
    typer.echo("\n".join(map(str, pictures)))


@app.command()
def streaming(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the users, a short seed, until 28 April: in minutes.")
    ] = False,
    short: Annotated[bool, typer.Option("--short", help="All users and the full seed, until 30 April.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3; all by default in the full form.")] = "",
    out: Annotated[Path | None, typer.Option(help="evaluation/results/streaming[-FORM].json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write tables and plot into docs/, too.")] = False,
    choose: Annotated[
        bool, typer.Option("--choose", help="Instead compare recipes on the visits before the report.")
    ] = False,
    daily: Annotated[
        bool, typer.Option("--daily/--without-daily", help="Whether the daily batch is trained, half of the time.")
    ] = True,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Run nothing: report the days that an unfinished run has come to.")
    ] = False,
) -> None:
    """Online learning against a daily refresh and counts, by prequential evaluation; kept in runs/streaming."""
    from evaluation.streaming import protocol, report  # noqa: PLC0415
    from evaluation.streaming import run as runs  # noqa: PLC0415 - loads torch
    from evaluation.table1.report import PAPER, RESULTS, write  # noqa: PLC0415

    configure_logging("evaluation")
    form = protocol.QUICK if quick else protocol.SHORT if short else protocol.FULL
    suffix = "" if form is protocol.FULL else f"-{form.name}"
    chosen = [int(seed) for seed in (seeds or ("1,2,3" if form is protocol.FULL else "1")).split(",")]
    try:
        if choose:
            from evaluation.streaming.choices import choose as compare  # noqa: PLC0415

            write(compare(form), out or RESULTS / f"streaming-choices{suffix}.json")
            return
        if so_far:
            place, until_ms = runs.so_far(form, chosen)
            summary = report.summarise(place, form, until_ms)
        else:
            summary = report.summarise(runs.run(form, chosen, daily=daily), form)
        write(summary, out or RESULTS / f"streaming{suffix}.json")
        if paper:
            from evaluation.streaming.figure import draw  # noqa: PLC0415 - needs matplotlib

            draw(summary, RESULTS / f"streaming{suffix}.png")
            report.write_paper(PAPER, summary, f"../evaluation/results/streaming{suffix}.png")
    except OneRecError as error:
        raise fail(error) from error
    typer.echo(report.table(summary))


@app.command()
def beauty(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="On the first users and their items, in minutes.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3; the quick form takes the first by default.")] = "",
    rows: Annotated[str, typer.Option(help="Only these rows, as cooccurrence,onerec; all by default.")] = "",
    data: Annotated[
        Path | None, typer.Option(envvar="AMAZON_BEAUTY", help="Folder of the data, which do not come with this.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda where torch has it.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Of torch, on the CPU.")] = 2,
    out: Annotated[Path | None, typer.Option(help="evaluation/results/beauty[-quick].json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and table into docs/paper.md, too.")] = False,
) -> None:
    """Amazon Beauty with TIGER's protocol, beside published figures; each row and seed is kept in runs/beauty."""
    from evaluation.beauty import dataset, protocol, report  # noqa: PLC0415 - loads torch
    from evaluation.beauty.run import device_of, run  # noqa: PLC0415
    from evaluation.table1.report import PAPER, RESULTS, write  # noqa: PLC0415

    configure_logging("evaluation")
    form = protocol.QUICK if quick else protocol.FULL
    chosen = [int(seed) for seed in (seeds or ("1" if quick else "1,2,3")).split(",")]
    try:
        own = device_of(device, threads)
        data_set = dataset.load(data or dataset.DEFAULT_FOLDER)
        place = run(data_set, form, chosen, only=rows.split(",") if rows else (), device=own)
        summary = report.summarise(place, form)
    except OneRecError as error:
        raise fail(error) from error
    write(summary, out or RESULTS / ("beauty-quick.json" if quick else "beauty.json"))
    if paper:
        report.write_paper(PAPER, summary)
    typer.echo(report.table(summary))


class SimulatorTask(StrEnum):
    """What to do with the simulated users."""

    FIT = "fit"
    CHECK = "check"


@app.command()
def simulator(
    task: Annotated[SimulatorTask, typer.Argument(help="fit prints coefficients; check fits, then checks.")],
    quick: Annotated[bool, typer.Option("--quick", help="On 1,500 users of each half, in seconds.")] = False,
    out: Annotated[Path | None, typer.Option(help="evaluation/results/simulator[-quick].json by default.")] = None,
) -> None:
    """Users as a model, fitted on one half of KuaiRand-Pure's users and checked on the other."""
    from evaluation.simulator import check  # noqa: PLC0415 - loads torch
    from evaluation.simulator.fit import fit_on_kuairand  # noqa: PLC0415
    from evaluation.table1.report import RESULTS, write  # noqa: PLC0415

    configure_logging("evaluation")
    try:
        if task is SimulatorTask.FIT:
            fitted, *_ = fit_on_kuairand(check.QUICK_USERS if quick else None)
            typer.echo(json.dumps(check.coefficients(fitted), indent=2))
            return
        result = check.run(quick)
    except OneRecError as error:
        raise fail(error) from error
    write(result, out or RESULTS / ("simulator-quick.json" if quick else "simulator.json"))
    typer.echo(check.summary(result))


@app.command()
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


@app.command()
def ab(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer users and half a day, in minutes.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1",
    out: Annotated[Path | None, typer.Option(help="evaluation/results/ab[-quick].json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and tables into docs/paper.md, too.")] = False,
) -> None:
    """Cascade against OneRec against OneRec with IPA in one running system, by simulated users; kept in runs/ab."""
    from evaluation.ab import report  # noqa: PLC0415 - loads torch
    from evaluation.table1.report import PAPER, RESULTS, write  # noqa: PLC0415

    configure_logging("evaluation")
    form = FORMS["quick" if quick else "full"]
    try:
        result = report.run(form, [int(seed) for seed in seeds.split(",")])
    except OneRecError as error:
        raise fail(error) from error
    write(result, out or RESULTS / ("ab-quick.json" if quick else "ab.json"))
    if paper:
        report.write_paper(PAPER, result)
    typer.echo(report.table(result))


@app.command(hidden=True)
def ab_cascade(
    form: Annotated[str, typer.Option()], seed: Annotated[int, typer.Option()] = 1, config: Config = None
) -> None:
    """The cascade as a service of an A/B run."""
    settings = read_settings(config)
    from evaluation.ab.cascade_worker import run_cascade  # noqa: PLC0415 - loads torch

    raise typer.Exit(run_service("cascade", settings, lambda stop: run_cascade(settings, FORMS[form], seed, stop)))


@app.command(hidden=True)
def ab_drive(
    form: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    seed: Annotated[int, typer.Option()] = 1,
    config: Config = None,
) -> None:
    """The users of an A/B run."""
    settings = read_settings(config)
    from evaluation.ab.drive import run_drive  # noqa: PLC0415 - loads torch

    raise typer.Exit(run_service("drive", settings, lambda stop: run_drive(settings, FORMS[form], seed, out, stop)))


@app.command()
def recbole(
    *,
    python: Annotated[str, typer.Option(envvar="RECBOLE_PYTHON", help="Of an environment that has RecBole.")],
    users: Annotated[int | None, typer.Option(min=100, help="Only the first users; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1",
    length: Annotated[int, typer.Option(min=5, help="Of RecBole's histories.")] = 50,
    epochs: Annotated[int, typer.Option(min=1, help="Of RecBole, at most.")] = 200,
    our_epochs: Annotated[int, typer.Option(min=1, help="Of our SASRec.")] = 80,
    batch_share: Annotated[float, typer.Option(min=0.01, max=1, help="Of both batch sizes, for slices.")] = 1.0,
    rows: Annotated[str, typer.Option(help="Rows, in this order.")] = "recbole,recbole-wide,sasrec-softmax",
    data: Annotated[Path | None, typer.Option(envvar="AMAZON_BEAUTY", help="Folder of the data.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    out: Annotated[Path | None, typer.Option(help="evaluation/results/recbole.json by default.")] = None,
) -> None:
    """RecBole's SASRec beside ours on Amazon Beauty, by one protocol: that ours is no weak baseline."""
    from evaluation.beauty import dataset  # noqa: PLC0415 - loads torch
    from evaluation.recbole import compare  # noqa: PLC0415
    from evaluation.table1.report import write  # noqa: PLC0415

    configure_logging("evaluation")
    settings = compare.Settings(
        python=python,
        users=users,
        length=length,
        epochs=epochs,
        our_epochs=our_epochs,
        batch_share=batch_share,
        rows=tuple(rows.split(",")),
        seeds=tuple(int(seed) for seed in seeds.split(",")),
        threads=threads,
    )
    try:
        summary = compare.compare(dataset.load(data or dataset.DEFAULT_FOLDER), settings)
    except OneRecError as error:
        raise fail(error) from error
    write(summary, out or compare.RESULTS)
    typer.echo(compare.table(summary))


if __name__ == "__main__":
    app(prog_name="python -m evaluation")
