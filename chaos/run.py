"""Runs the faults one after another, each on a system of its own."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.brokers import KINDS, best_kind
from chaos.configuration import HISTORY_ITEMS
from chaos.fault import Context, Fault, Outcome
from chaos.faults import REGISTRY
from chaos.log_slice import read_slice
from chaos.report import report
from onerec.errors import OneRecError, SettingsError
from onerec.machine import machine

LOG = logging.getLogger(__name__)


def run_faults(kind: str | None, names: Sequence[str], *, directory: Path, long: bool, seed: int) -> dict[str, Any]:
    """The report; see chaos.report. `kind` is one of KINDS, None for the best that there is here.

    Raises SettingsError for unknown names, DependencyMissingError for no broker.
    """
    faults = chosen(names, long=long)
    kind = kind or best_kind()
    if kind not in KINDS:
        raise SettingsError(f"--broker {kind} is none of {', '.join(KINDS)}.", "Choose one of them.")
    log = read_slice(HISTORY_ITEMS)
    outcomes: list[tuple[Fault, Outcome]] = []
    left_out: dict[str, str] = {}
    with KINDS[kind](directory / "broker") as broker:
        for fault in faults:
            reason = fault.missing(broker)
            if reason is not None:
                left_out[fault.name] = reason
                LOG.info("%s is left out: %s", fault.name, reason)
                continue
            # By name, so that one fault alone repeats what it did among others.
            rng = random.Random(f"{seed}-{fault.name}")
            context = Context(broker, directory / fault.name, long, rng, log)
            outcomes.append((fault, outcome_of(fault, context)))
    return report(kind, outcomes, left_out=left_out, seed=seed, form="long" if long else "short", machine=machine())


def chosen(names: Sequence[str], *, long: bool) -> list[Fault]:
    """The faults to run, in their order. Raises SettingsError that names an unknown one."""
    known = [fault.name for fault in REGISTRY]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"There is no fault {', '.join(unknown)}.", f"Choose among {', '.join(known)}.")
    return [fault for fault in REGISTRY if (fault.name in names if names else long or fault.in_short)]


def outcome_of(fault: Fault, context: Context) -> Outcome:
    """Run one; a system that cannot go on is an outcome, too: nothing says that it is right.

    So is a fault that could not be injected: what the others have shown is not lost with it.
    """
    context.say(f"{fault.name}: {fault.injected}")
    try:
        outcome = fault.run(context)
    except OneRecError as error:
        outcome = Outcome(0, 0, 0, identical=False, seen=f"the system could not go on: {error}")
    except Exception as error:
        LOG.exception("%s failed", fault.name)
        outcome = Outcome(0, 0, 0, identical=False, seen=f"the fault could not be injected: {error!r}")
    context.say(f"{fault.name}: {'holds' if outcome.holds else 'FAILS'}: {outcome.seen}")
    if outcome.holds:
        for store in context.directory.glob("*/*"):
            if store.name in {"state", "store"}:
                shutil.rmtree(store)
    return outcome
