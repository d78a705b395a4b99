"""`onerec config`: every setting, its value in force and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import BaseModel, SecretStr
from rich.console import Console
from rich.table import Table

from onerec.cli.options import Config, Json, read_settings
from onerec.secrets import HIDDEN, is_secret_property, without_secrets


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, dict):
        return json.dumps({name: HIDDEN if is_secret_property(name) else one for name, one in value.items()})
    return without_secrets(str(value))


def rows(table: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, value and meaning of every setting under `table`; secrets are hidden."""
    for name, field in type(table).model_fields.items():
        key, value = f"{prefix}{name}", getattr(table, name)
        if isinstance(value, BaseModel):
            yield from rows(value, f"{key}.")
        else:
            yield key, _shown(value), field.description or ""


def config(config: Config = None, as_json: Json = False) -> None:
    """Print every setting: key, value in force, meaning.

    Defaults < TOML file (--config or ONEREC_CONFIG) < environment: trainer.learning_rate is set by
    ONEREC_TRAINER__LEARNING_RATE.
    """
    found = list(rows(read_settings(config)))
    if as_json:
        print(json.dumps({key: value for key, value, _ in found}, indent=2))
        return
    table = Table("setting", "value", "meaning", header_style="bold", box=None)
    for row in found:
        table.add_row(*row)
    Console().print(table)
