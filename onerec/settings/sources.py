"""Settings of every service: defaults < TOML file < environment < flags.

A table for each folder (`stream`, `trainer`, `inference`) and one for each thing they share. The environment
spells a key `ONEREC_TRAINER__LEARNING_RATE`; the TOML file is named by `ONEREC_CONFIG` or `--config`. An
unknown key or a contradiction is an error that names it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as SourceError

from onerec.errors import SettingsError
from onerec.secrets import is_secret_property, remember, secrets_in
from onerec.settings.evaluation import EvaluationSettings
from onerec.settings.inference import InferenceSettings
from onerec.settings.kafka import KafkaSettings
from onerec.settings.store import MetricsSettings, StoreSettings
from onerec.settings.stream import StreamSettings
from onerec.settings.trainer import ModelSettings, TrainerSettings

CONFIG_VARIABLE = "ONEREC_CONFIG"
OTHER_VARIABLES = ("ONEREC_CONFIG", "ONEREC_LOG", "ONEREC_BOOTSTRAP_SERVERS")
OTHER_PREFIXES = ("ONEREC_TEST_",)


class Settings(BaseSettings):
    """All tables. Build it with `load_settings`, which turns errors into sentences."""

    model_config = SettingsConfigDict(
        env_prefix="ONEREC_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    metrics: MetricsSettings = MetricsSettings()
    model: ModelSettings = ModelSettings()
    stream: StreamSettings = StreamSettings()
    trainer: TrainerSettings = TrainerSettings()
    inference: InferenceSettings = InferenceSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        worker = self.inference.worker
        if worker.pin_version is not None and worker.output_topic == "recommendations" and worker.group != "worker":
            raise ValueError("inference.worker.pin_version with its own group needs its own output_topic")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the framework's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the TOML file."""
        path = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, env_settings, *toml)


def _check_environment() -> None:
    """A misspelt table would be ignored by the framework: name it instead."""
    for name in os.environ:
        if not name.startswith("ONEREC_") or name in OTHER_VARIABLES or name.startswith(OTHER_PREFIXES):
            continue
        table = name.removeprefix("ONEREC_").split("__")[0].lower()
        if "__" not in name or table not in Settings.model_fields:
            tables = ", ".join(Settings.model_fields)
            raise SettingsError(
                f"The environment variable {name} names no setting.",
                f"Spell it ONEREC_<TABLE>__<KEY> with a table of {tables}; `onerec config` lists all keys.",
            )


def _secrets(settings: Settings) -> list[str]:
    """Every value of these settings that must not be shown."""
    kafka = settings.kafka
    found = [value for name, value in kafka.librdkafka.items() if is_secret_property(name)]
    if kafka.sasl_password is not None:
        found.append(kafka.sasl_password.get_secret_value())
    return [*found, *secrets_in(kafka.schema_registry_url or ""), *secrets_in(settings.store.uri)]


def _flatten(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors())


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Read all sources; `flags` are tables as dicts and win. What in them is secret is from then on masked.

    Raises SettingsError naming the key for an unknown one, a wrong value or a contradiction, and for a file
    that is missing or no TOML.
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise SettingsError(f"The configuration file {path} does not exist.", f"Mend --config or {CONFIG_VARIABLE}.")
    _check_environment()
    try:
        settings = Settings(**flags)
    except SourceError as error:
        raise SettingsError(f"Settings are wrong: {error}.", "In the environment, tables and lists are JSON.") from None
    except ValidationError as error:
        raise SettingsError(f"Settings are wrong: {_flatten(error)}.", "`onerec config` lists all keys.") from error
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8, numbers and nesting without end
        raise SettingsError(f"{path} is no TOML: {error}.", "Mend the file.") from error
    remember(_secrets(settings))
    return settings
