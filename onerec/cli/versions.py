"""`onerec versions`: what the store has, what is served, how to change that, and making a version again."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from onerec.cli.options import Config, Json, fail, read_settings
from onerec.errors import DependencyMissingError, OneRecError, SettingsError

if TYPE_CHECKING:
    from onerec.settings import Settings
    from onerec.weights.manifest import Manifest
    from onerec.weights.serving import ServingChoice
    from onerec.weights.shelf import Shelf
    from schemas.records import VersionStatus

app = typer.Typer(no_args_is_help=True, help="Versions of the model: list, show, pin, roll back, reproduce.")
Version = Annotated[int, typer.Argument(min=1, help="Number of the version.")]
Limit = Annotated[int, typer.Option(min=1, help="Only so many of the newest.")]


@app.command("list")
def list_versions(limit: Limit = 20, config: Config = None, as_json: Json = False) -> None:
    """List the versions in the store, newest first, and mark the one that is served."""
    settings = read_settings(config)
    try:
        manifests, damaged = _manifests(settings, limit)
    except OneRecError as error:
        raise fail(error) from error
    choice, unknown = _choice(settings)
    if as_json:
        rows = [_row(manifest, choice) for manifest in manifests]
        print(json.dumps({"serving": choice.version if choice else None, "versions": rows, "damaged": damaged}))
        return
    console = Console()
    console.print(table(manifests, choice))
    for sentence in [*damaged, *([unknown] if unknown else [])]:
        console.print(sentence, style="yellow", highlight=False)


@app.command()
def show(version: Version, config: Config = None, as_json: Json = False) -> None:
    """Show one version: its file, digest, what it has learned from, its metrics."""
    settings = read_settings(config)
    try:
        manifest = _shelf(settings).manifest(version)
    except OneRecError as error:
        raise fail(error) from error
    choice, unknown = _choice(settings)
    row = _row(manifest, choice) | {"tensors": len(manifest.tensors), "file": manifest.file, **manifest.facts}
    if as_json:
        print(json.dumps(row))
        return
    table = Table("field", "value", header_style="bold", box=None)
    for key, value in row.items():
        table.add_row(key, json.dumps(value) if isinstance(value, list | dict) else str(value))
    console = Console()
    console.print(table)
    if unknown:
        console.print(unknown, style="yellow", highlight=False)


@app.command()
def pin(version: Version, config: Config = None) -> None:
    """Serve this version, whatever is published, until `unpin`."""
    from schemas.records import VersionStatus  # noqa: PLC0415

    _direct(read_settings(config), version, VersionStatus.PINNED)
    print(f"version {version} is pinned; `onerec versions unpin` serves the newest again")


@app.command()
def rollback(version: Version, config: Config = None) -> None:
    """Serve this version until a newer one than any known now is published."""
    from schemas.records import VersionStatus  # noqa: PLC0415

    _direct(read_settings(config), version, VersionStatus.ROLLED_BACK)
    print(f"rolled back to version {version} until the trainer publishes a new one")


@app.command()
def unpin(config: Config = None) -> None:
    """Serve the newest version again."""
    from onerec.weights.directives import read_choice  # noqa: PLC0415
    from schemas.records import VersionStatus  # noqa: PLC0415

    settings = read_settings(config)
    try:
        choice = read_choice(settings)
        if choice.directive is None:
            raise SettingsError("Nothing is pinned or rolled back.", "See `onerec versions list`.")
    except OneRecError as error:
        raise fail(error) from error
    _direct(settings, choice.newest or choice.directive.version, VersionStatus.UNPINNED)
    print(f"unpinned; version {choice.newest} is served")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reproduce(context: typer.Context) -> None:
    """Make a version again from checkpoint or seed, journal and log: the same bits? `--help` lists the options."""
    os.execv(sys.executable, [sys.executable, "-m", "trainer", "reproduce", *context.args])  # noqa: S606 - our own


def _direct(settings: Settings, version: int, status: VersionStatus) -> None:
    from onerec.weights.directives import direct  # noqa: PLC0415

    try:
        direct(settings, version, status)
    except OneRecError as error:
        raise fail(error) from error


def _shelf(settings: Settings) -> Shelf:
    """The versions; with a verify key only those that it verifies."""
    from onerec.weights.shelf import Shelf  # noqa: PLC0415
    from onerec.weights.signature import verifier_of  # noqa: PLC0415

    return Shelf(settings.store.uri, verifier=verifier_of(settings.store))


def _manifests(settings: Settings, limit: int) -> tuple[list[Manifest], list[str]]:
    """The newest manifests, newest first, and a sentence for each that cannot be read."""
    from onerec.weights.errors import CorruptWeightsError, VersionMissingError, WrongSignatureError  # noqa: PLC0415

    shelf = _shelf(settings)
    manifests: list[Manifest] = []
    damaged: list[str] = []
    for version in reversed(shelf.versions()):
        if len(manifests) == limit:
            break
        try:
            manifests.append(shelf.manifest(version))
        except (CorruptWeightsError, WrongSignatureError) as error:
            damaged.append(str(error))
        except VersionMissingError:  # collected since it was listed
            continue
    return manifests, damaged


def _choice(settings: Settings) -> tuple[ServingChoice | None, str]:
    """What is served, or why that is not known."""
    from onerec.weights.directives import read_choice  # noqa: PLC0415

    try:
        return read_choice(settings), ""
    except DependencyMissingError as error:
        return None, f"What is served is not known: {error}"


def _row(manifest: Manifest, choice: ServingChoice | None) -> dict[str, Any]:
    fields = dataclasses.asdict(manifest)
    chosen = ("version", "kind", "parent", "size_bytes", "sha256", "created_ms")
    facts = {key: manifest.facts.get(key) for key in ("step", "preset", "codebook_version", "metrics")}
    return {**{key: fields[key] for key in chosen}, **facts, "serving": _serving(manifest.version, choice)}


def _serving(version: int, choice: ServingChoice | None) -> str:
    """Nothing, or why this version is the one to serve."""
    if choice is None or choice.version != version:
        return ""
    if choice.pinned:
        return "pinned"
    return "rolled back" if choice.rolled_back else "newest"


def table(manifests: list[Manifest], choice: ServingChoice | None) -> Table:
    """One row a version."""
    made = Table(
        "version", "serving", "kind", "parent", "step", "KiB", "age s", "sha256", "learned", header_style="bold"
    )
    now_ms = time.time_ns() // 1_000_000
    for manifest in manifests:
        row = _row(manifest, choice)
        learned = " ".join(f"{name} {value:.4g}" for name, value in sorted((row["metrics"] or {}).items()))
        made.add_row(
            str(manifest.version),
            row["serving"],
            manifest.kind,
            "" if manifest.parent is None else str(manifest.parent),
            str(row["step"]),
            f"{manifest.size_bytes / 1024:.0f}",
            f"{(now_ms - manifest.created_ms) / 1000:.0f}",
            manifest.sha256[:12],
            learned,
        )
    return made
