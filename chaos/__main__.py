"""`python -m chaos`: faults on the running system, and the oracle after each."""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from onerec.cli.options import fail
from onerec.errors import ExitCode, OneRecError
from onerec.interrupts import interrupt_on_signals

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def chaos(  # noqa: PLR0917 - a command line
    long: Annotated[bool, typer.Option("--long/--short", help="All faults, within half an hour; or CI's.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Names of faults; may be given several times.")] = None,
    broker: Annotated[
        str | None,
        typer.Option(help="kafka or cluster, one node or three (KAFKA_HOME), or embedded; what there is."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The report as JSON.")] = Path("chaos.json"),
    seed: Annotated[int | None, typer.Option(help="Of everything random; a fresh one by default.")] = None,
    directory: Annotated[Path, typer.Option(help="Logs and state of the runs; emptied at the start.")] = Path(
        "runs/chaos"
    ),
) -> None:
    """Break the running system in many ways; after each one audit the topics and make the weights again.

    Exit code 4 where anything is lost or doubled, or the weights are not the same bits.
    """
    from rich.console import Console  # noqa: PLC0415 - help is quick

    from chaos.report import show, write  # noqa: PLC0415
    from chaos.run import run_faults  # noqa: PLC0415 - loads the Kafka client

    interrupt_on_signals()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    _forget_settings()
    shutil.rmtree(directory, ignore_errors=True)
    chosen_seed = seed if seed is not None else random.SystemRandom().randrange(2**31)
    started_s = time.monotonic()
    try:
        found = run_faults(broker, tuple(only or ()), directory=directory, long=long, seed=chosen_seed)
    except OneRecError as error:
        raise fail(error) from error
    except KeyboardInterrupt:
        typer.echo(f"stopped; the logs of all services are in {directory}")
        raise typer.Exit(130) from None
    found["wall_s"] = round(time.monotonic() - started_s, 1)
    write(found, out)
    show(found, Console(width=None if os.isatty(1) else 160))
    typer.echo(f"report: {out}   seed: {chosen_seed}   logs: {directory}/")
    if not found["identical"] or any(found[name] for name in ("lost", "duplicated", "wrong", "vacuous", "broken")):
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


def _forget_settings() -> None:
    """The systems under test have settings of their own; those of this shell must not reach them."""
    for name in [name for name in os.environ if name.startswith("ONEREC_") and "__" in name]:
        del os.environ[name]
    os.environ.pop("ONEREC_CONFIG", None)


if __name__ == "__main__":
    app(prog_name="python -m chaos")
