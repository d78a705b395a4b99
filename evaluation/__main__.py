"""`python -m evaluation COMMAND`: prequential, report, and the paper's tables; each loads only what it needs."""

from __future__ import annotations

import typer

from evaluation.cli.beauty import beauty, recbole
from evaluation.cli.running import prequential, report
from evaluation.cli.simulated import ab, ab_cascade, ab_drive, simulate, simulator
from evaluation.cli.streaming import streaming
from evaluation.cli.table1 import figures, precision, table1

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
for command in (prequential, report, table1, figures, precision, streaming, beauty, recbole, simulator, simulate, ab):
    app.command()(command)
for service in (ab_cascade, ab_drive):  # of an A/B run, which starts them
    app.command(hidden=True)(service)

if __name__ == "__main__":
    app(prog_name="python -m evaluation")
