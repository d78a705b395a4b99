"""`onerec demo`: the whole loop on this machine with a real log, in minutes."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from onerec.cli.options import fail
from onerec.errors import OneRecError
from onerec.interrupts import interrupt_on_signals
from onerec.secrets import masking_handler

BROKER_VARIABLE = "ONEREC_BOOTSTRAP_SERVERS"


def demo(
    events: Annotated[int, typer.Option(min=100, help="Exposures of the log to replay, or to simulate.")] = 20_000,
    seed_seconds: Annotated[float, typer.Option(min=1.0, help="Wall time for training the seed model.")] = 50.0,
    preset: Annotated[str, typer.Option(help="Model preset; see `onerec model`.")] = "small",
    report: Annotated[Path | None, typer.Option(help="Write the report as JSON, with no live view.")] = None,
    directory: Annotated[Path, typer.Option(help="Where the run's files go; emptied at the start.")] = Path(
        "runs/demo"
    ),
    *,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulated users act on the answers, instead of a replayed log.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write traces of the services' time below DIRECTORY/profile.")
    ] = False,
) -> None:
    """Watch a real Kuaishou log flow through Kafka into a model that learns while it serves.

    Takes the broker of ONEREC_BOOTSTRAP_SERVERS, else starts an embedded one. Ctrl-C stops everything.
    """
    interrupt_on_signals()
    console = Console(force_terminal=False if report else None)
    logging.basicConfig(level="WARNING", handlers=[masking_handler("%(levelname)s %(message)s")])
    try:
        asked = {"events": events, "seed_s": seed_seconds, "preset": preset, "simulate": simulate, "profile": profile}
        result = _run(console, directory=directory, **asked)
    except OneRecError as error:
        raise fail(error) from error
    except KeyboardInterrupt:
        console.print("stopped; the logs of all services are in", directory / "logs")
        raise typer.Exit(130) from None
    target = report or directory / "report.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    from onerec.demo.summary import print_summary  # noqa: PLC0415 - commands load what they need

    print_summary(result, console)
    console.print(f"report: {target}   logs, versions, settings: {directory}/")
    if profile:
        console.print(
            f"profile: {directory}/profile/   *.speedscope.json: speedscope.app   *.trace.json.gz: ui.perfetto.dev"
        )


def _run(console: Console, *, directory: Path, **asked: Any) -> dict[str, Any]:
    from onerec.demo.loop import Demo, Options, Progress, broker_of, configuration  # noqa: PLC0415
    from onerec.demo.profile import sampler  # noqa: PLC0415
    from onerec.demo.supervisor import Supervisor  # noqa: PLC0415
    from onerec.demo.view import shown  # noqa: PLC0415
    from onerec.machine import machine  # noqa: PLC0415
    from onerec.settings import load_settings  # noqa: PLC0415

    options = Options(directory, bootstrap_servers=os.environ.get(BROKER_VARIABLE), **asked)
    if options.profile:
        sampler()  # missing, it is missed now and not after minutes
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = directory / "onerec.toml"
    progress = Progress(simulated=options.simulate)
    with broker_of(options) as (servers, broker):
        config.write_text(configuration(options, servers))
        environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with Supervisor(directory, environment) as supervisor, shown(progress, console):
            result = Demo(options, load_settings(config), supervisor, progress).run()
    return {**result, "broker": broker, "machine": machine()}
