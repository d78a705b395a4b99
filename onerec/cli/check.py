"""`onerec check`: whether this machine and this broker can run the services."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import typer
from rich.console import Console

from onerec.cli.options import Config, read_settings
from onerec.errors import CheckFailedError, ExitCode, OneRecError
from onerec.machine import machine
from onerec.settings import Settings

BROKER_TIMEOUT_S = 10.0
PROBE = ".onerec-check"


def _machine(_: Settings) -> str:
    found = machine()
    versions = f"Python {found['python']}, torch {found['torch']}"
    return f"{versions}, {found['cores']} cores of {found['cpu']} ({found['features']})"


def _broker(settings: Settings) -> str:
    from onerec.kafka.admin import cluster_id, wait_for_broker  # noqa: PLC0415

    wait_for_broker(settings.kafka, BROKER_TIMEOUT_S)
    return f"broker {settings.kafka.bootstrap_servers}, cluster {cluster_id(settings.kafka)}"


def _topics(settings: Settings) -> str:
    from onerec.kafka.admin import check_topics  # noqa: PLC0415

    differences = check_topics(settings.kafka)
    if differences:
        raise CheckFailedError(" ".join(differences), "Run `onerec topics create`.")
    return "all topics as they should be"


def _store(settings: Settings) -> str:
    from onerec.weights.folder import Folder  # noqa: PLC0415

    folder = Folder(settings.store.uri)
    folder.write(PROBE, b"")
    folder.remove(PROBE)
    return f"weights store {folder.uri} can be written"


CHECKS: tuple[Callable[[Settings], str], ...] = (_machine, _broker, _topics, _store)


def run_checks(settings: Settings) -> Iterator[tuple[bool, str]]:
    """Each check's outcome and a sentence."""
    for check in CHECKS:
        try:
            yield True, check(settings)
        except OneRecError as error:
            yield False, str(error)


def check(config: Config = None) -> None:
    """Say whether machine, broker, topics and weights store are fit to run the services; exit code 4 if not."""
    console, failed = Console(), False
    for good, sentence in run_checks(read_settings(config)):
        console.print(("[green]ok[/]      " if good else "[red]failed[/]  ") + sentence, highlight=False)
        failed = failed or not good
    if failed:
        raise typer.Exit(int(ExitCode.CHECK_FAILED))
