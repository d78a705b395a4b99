"""ONE checkpoint: weights, optimizers, offsets, seen ids and counters of the same step, in one folder.

    <directory>/step-000000001234/state.safetensors   all tensors
    <directory>/step-000000001234/state.json          everything else, the tensors' SHA-256 and its own

It is written aside, synced and renamed, so that under its name it is whole; a torn one is refused by its
checksums and the one before is used: the journal leads from there to the same state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from onerec.errors import CheckFailedError, SettingsError
from onerec.model.presets import ModelConfig
from onerec.settings import TrainerSettings
from onerec.weights.tensors import pack
from trainer.state import TrainState

LOG = logging.getLogger(__name__)
FORMAT = 1
TENSORS, FIELDS = "state.safetensors", "state.json"
_KEYS = frozenset({"step", "online_from", "version", "offsets", "config", "surroundings", "tensors_sha256"})
_COUNTERS = ("step", "online_from", "version")
_NAME = re.compile(r"step-(\d{12})(-kept)?")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a checkpoint must know beside the state: which log it is of and where the journal stood."""

    model: str
    cluster_id: str
    journal_offset: int
    """The journal's entries from here on belong to later steps."""
    codebook_version: int
    environment: Mapping[str, str]


class TornCheckpointError(CheckFailedError):
    """A checkpoint is not what its checksums say."""

    def __init__(self, folder: Path, detail: str) -> None:
        super().__init__(f"The checkpoint {folder} is torn: {detail}.", "An older one is used; remove this one.")


class Checkpoints:
    """The checkpoints of one trainer, the newest `keep` of them besides those kept for good."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self._keep = keep

    def save(self, state: TrainState, surroundings: Surroundings, *, for_good: bool = False) -> Path:
        """Write the state; the older ones beyond `keep` are removed. Raises OSError where the disk does not take it."""
        folder = self.directory / f"step-{state.step:012d}{'-kept' if for_good else ''}"
        aside = folder.with_name(folder.name + ".partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            tensors = pack(state.tensors())
            _write(aside / TENSORS, tensors)
            _write(aside / FIELDS, _sealed(_fields(state, surroundings) | {"tensors_sha256": _sha256(tensors)}))
            _sync(aside)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _sync(self.directory)
        self._prune()
        return folder

    def folders(self) -> list[Path]:
        """All checkpoints, oldest first."""
        found = self.directory.glob("step-*") if self.directory.is_dir() else ()
        return sorted((path for path in found if _NAME.fullmatch(path.name)), key=lambda path: path.name)

    def load(self, config: ModelConfig, settings: TrainerSettings) -> tuple[TrainState, Surroundings] | None:
        """The newest whole checkpoint; None where there are none at all.

        Raises CheckFailedError where all are torn, and SettingsError where it is of another model.
        """
        folders = self.folders()
        for folder in reversed(folders):
            try:
                return load_checkpoint(folder, config, settings)
            except TornCheckpointError as error:
                LOG.error("%s", error)
        if folders:
            raise CheckFailedError(
                f"All {len(folders)} checkpoints in {self.directory} are torn.",
                "Restore one, or move the folder away to train a new seed.",
            )
        return None

    def _prune(self) -> None:
        passing = [path for path in self.folders() if not path.name.endswith("-kept")]
        for path in passing[: -self._keep]:
            shutil.rmtree(path)


def step_of(folder: Path) -> int:
    """The step of one of `Checkpoints.folders`."""
    found = _NAME.fullmatch(folder.name)
    assert found is not None
    return int(found[1])


def load_checkpoint(folder: Path, config: ModelConfig, settings: TrainerSettings) -> tuple[TrainState, Surroundings]:
    """The state in one folder. Raises TornCheckpointError or SettingsError."""
    fields = _opened(folder)
    if not _is_of(fields["config"], config):
        raise SettingsError(
            f"The checkpoint {folder} is of another model than preset {config.name}.",
            "Mend model.preset or model.decoder, or move the checkpoints away to train a new seed.",
        )
    try:
        data = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise TornCheckpointError(folder, str(error)) from error
    if _sha256(data) != fields["tensors_sha256"]:
        raise TornCheckpointError(folder, f"{TENSORS} does not match its SHA-256")
    state = TrainState.new(config, settings)
    try:
        state.load_tensors(load_tensors(data))
        state.step, state.online_from, state.version = map(_number, (fields[name] for name in _COUNTERS))
        state.offsets = {(str(topic), _number(at)): _number(offset) for topic, at, offset in fields["offsets"]}
        return state, Surroundings(**fields["surroundings"])
    except (KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise TornCheckpointError(folder, f"it holds no state of this trainer: {error!r:.300}") from error


def _is_of(found: Any, config: ModelConfig) -> bool:
    """Whether a checkpoint is of this model; one that was written before a size had a field has its default."""
    usual = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    return isinstance(found, dict) and {**usual, **found} == dataclasses.asdict(config)


def _number(found: Any) -> int:
    """Raises TypeError for what is no whole number, ValueError for a negative one."""
    if type(found) is not int:
        raise TypeError(f"{found!r:.80} is no whole number")
    if found < 0:
        raise ValueError(f"{found} is negative")
    return found


def _fields(state: TrainState, surroundings: Surroundings) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": state.step,
        "online_from": state.online_from,
        "version": state.version,
        "offsets": [[*partition, offset] for partition, offset in sorted(state.offsets.items())],
        "config": dataclasses.asdict(state.config),
        "surroundings": dataclasses.asdict(surroundings),
    }


def _sealed(fields: Mapping[str, Any]) -> bytes:
    body = json.dumps(fields, sort_keys=True, indent=1)
    return json.dumps({"sha256": _sha256(body.encode()), "body": body}).encode()


def _opened(folder: Path) -> dict[str, Any]:
    try:
        sealed = json.loads((folder / FIELDS).read_bytes())
        body: str = sealed["body"]
        whole = _sha256(body.encode()) == sealed["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TornCheckpointError(folder, f"{FIELDS}: {error}") from error
    if not whole:
        raise TornCheckpointError(folder, f"{FIELDS} does not match its SHA-256")
    try:
        fields: dict[str, Any] = json.loads(body)
        if fields["format"] != FORMAT:
            raise ValueError(f"format {fields['format']!r}, this trainer reads {FORMAT}")
        missing = _KEYS - fields.keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TornCheckpointError(folder, f"{FIELDS}: {error!r}") from error
    if missing:
        raise TornCheckpointError(folder, f"{FIELDS} lacks {', '.join(sorted(missing))}")
    return fields


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
