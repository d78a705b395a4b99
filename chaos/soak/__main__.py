"""`python -m chaos.soak`: the whole system under full load, with rolling restarts; what grows is found by its slope."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from onerec.cli.options import fail
from onerec.errors import ExitCode, OneRecError, SettingsError
from onerec.interrupts import interrupt_on_signals

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def soak(  # noqa: PLR0917 - a command line
    minutes: Annotated[float, typer.Option(min=0.1, help="Under load, after the seed.")] = 40.0,
    restart_every_s: Annotated[float, typer.Option(min=1.0, help="Between two restarts, each of the next service.")] = (
        240.0
    ),
    preset: Annotated[
        str, typer.Option(help="Model preset, with ids for 7,583 items: small or a larger one.")
    ] = "small",
    broker: Annotated[str, typer.Option(help="kafka (needs KAFKA_HOME) or embedded.")] = "kafka",
    out: Annotated[Path, typer.Option(help="The report as JSON.")] = Path("soak.json"),
    directory: Annotated[Path, typer.Option(help="Logs and state of the run; emptied at the start.")] = Path(
        "runs/soak"
    ),
    judge_only: Annotated[
        Path | None, typer.Option("--judge", help="Run nothing: judge the samples.jsonl of an earlier run.")
    ] = None,
) -> None:
    """Exit code 4 where memory, descriptors, threads, time series or a folder grow, or the audit finds anything."""
    from rich.console import Console  # noqa: PLC0415 - help is quick

    from chaos.soak.observe import Samples  # noqa: PLC0415
    from chaos.soak.table import show  # noqa: PLC0415
    from chaos.soak.verdict import judge  # noqa: PLC0415

    interrupt_on_signals()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    try:
        report = {} if judge_only else _run(directory, minutes, restart_every_s, preset, broker)
    except OneRecError as error:
        raise fail(error) from error
    except KeyboardInterrupt:
        typer.echo(f"stopped; judge what there is with --judge {directory}/samples.jsonl")
        raise typer.Exit(130) from None
    findings = judge(Samples.read(judge_only or directory / "samples.jsonl"))
    report |= findings.as_json()
    out.write_text(json.dumps(report, indent=2) + "\n")
    show(findings, Console(width=160))
    audited: dict[str, Any] = report.get("audit", {})
    typer.echo(f"report: {out}   work: {report.get('work', 'not known')}   audit: {_words(audited)}")
    if findings.broken or not audited.get("clean", True):
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _run(directory: Path, minutes: float, restart_every_s: float, preset: str, kind: str) -> dict[str, Any]:
    import psutil  # noqa: PLC0415

    from chaos.brokers import KINDS  # noqa: PLC0415 - loads the Kafka client
    from chaos.configuration import toml  # noqa: PLC0415
    from chaos.soak.configuration import tables  # noqa: PLC0415
    from chaos.soak.observe import Observer  # noqa: PLC0415
    from chaos.soak.system import Soak, folders_of  # noqa: PLC0415
    from onerec.demo.supervisor import Supervisor  # noqa: PLC0415
    from onerec.machine import machine  # noqa: PLC0415
    from onerec.settings import load_settings  # noqa: PLC0415

    if kind not in KINDS:
        raise SettingsError(f"--broker {kind} is none of {', '.join(KINDS)}.", "Choose one of them.")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = directory / "onerec.toml"
    environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    os.environ.pop("ONEREC_CONFIG", None)
    with KINDS[kind](directory / "broker") as running:
        config.write_text(toml(tables(running.kafka, directory, preset)))
        (pid,) = (child.pid for child in psutil.Process().children())  # the broker: nothing else has been started
        with Supervisor(directory, environment) as supervisor:
            observer = Observer(directory / "samples.jsonl", folders_of(directory))
            soak = Soak(load_settings(config), supervisor, observer, directory, pid, restart_every_s)
            try:
                soak.run(minutes)
            finally:
                observer.close()
        return {"broker": kind, "preset": preset, "work": soak.work(), "audit": soak.audit(), "machine": machine()}


def _words(audited: dict[str, Any]) -> str:
    if not audited:
        return "none"
    return f"{audited['lost']} lost, {audited['duplicated']} duplicated, {audited['wrong']} wrong"


if __name__ == "__main__":
    app(prog_name="python -m chaos.soak")
