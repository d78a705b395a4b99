"""Runs benches one after another; each ends in an object, also where it cannot be run."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from bench.bench import Bench, Context, Measured
from bench.benches import REGISTRY
from bench.conditions import conditions
from onerec.errors import OneRecError, SettingsError

LOG = logging.getLogger(__name__)


def chosen(names: Sequence[str]) -> list[Bench]:
    """The benches to run, in their order; all where none is named. Raises SettingsError that names an unknown one."""
    known = [bench.name for bench in REGISTRY]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"There is no bench {', '.join(unknown)}.", f"Choose among {', '.join(known)}.")
    return [bench for bench in REGISTRY if not names or bench.name in names]


def run(bench: Bench, *, directory: Path, threads: int, brief: bool) -> dict[str, Any]:
    """The object of one bench. What cannot be measured here has no figures, and `conditions["reason"]` says why."""
    own = directory / bench.name
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    started_s = time.monotonic()
    LOG.info("%s: %s", bench.name, bench.what)
    try:
        found = bench.measure(Context(own, threads, brief))
    except (OneRecError, KafkaException) as error:
        LOG.warning("%s: not measured: %s", bench.name, error)
        found = Measured(None, None, None, conditions={"reason": str(error)})
    found.conditions["wall_s"] = round(time.monotonic() - started_s, 1)
    return bench.result(found, conditions(brief=brief))
