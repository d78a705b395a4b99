"""`onerec up`: all services on this machine against the configured broker, until Ctrl-C."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from onerec.cli.options import Config, fail, read_settings
from onerec.errors import OneRecError
from onerec.interrupts import interrupt_on_signals
from onerec.secrets import masking_handler

SERVICES = {
    "tokenizer": ("stream", "tokenizer"),
    "joiner": ("stream", "joiner"),
    "trainer": ("trainer", "run"),
    "worker": ("inference", "worker"),
    "sampler": ("inference", "sampler"),
}


def up(
    config: Config = None,
    directory: Annotated[Path, typer.Option(help="Logs and local state of the services.")] = Path("runs/up"),
) -> None:
    """Run tokenizer, joiner, trainer, worker and sampler; crashed ones are started again.

    Needs a broker with topics (`onerec topics create`), published items and a codebook (`python -m stream codebook`).
    """
    from onerec.demo.supervisor import Supervisor  # noqa: PLC0415 - commands load what they need
    from onerec.kafka.admin import wait_for_broker  # noqa: PLC0415

    interrupt_on_signals()
    logging.basicConfig(level="INFO", handlers=[masking_handler("%(asctime)s %(levelname)s %(message)s")])
    settings = read_settings(config)
    environment = {"ONEREC_CONFIG": str(config.resolve())} if config else {}
    try:
        wait_for_broker(settings.kafka, 30.0)
        with Supervisor(directory, environment) as supervisor:
            for name, arguments in SERVICES.items():
                supervisor.start(name, *arguments)
            typer.echo(f"running; logs in {directory}/logs, metrics: {supervisor.endpoints()}. Ctrl-C stops.")
            while True:
                supervisor.check()
                time.sleep(0.5)
    except OneRecError as error:
        raise fail(error) from error
    except KeyboardInterrupt:
        typer.echo("stopped")
