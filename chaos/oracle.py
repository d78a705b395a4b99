"""What is true of a run afterwards: what is lost, what is there twice, and whether its weights come out again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.findings import FAILURES
from onerec.errors import CheckFailedError, ExitCode
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.settings import Settings
from schemas.records import JournalKind
from schemas.topics import TRAINER_JOURNAL

TIMEOUT_S = 600.0
READ_TIMEOUT_S = 60.0
SHOWN = ("sessions", "requests", "preferences")
"""Lines of the audit whose counts are told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The oracle's findings."""

    lost: int
    duplicated: int
    wrong: int
    """Records that are there once, but not as they must be."""
    identical: bool
    detail: str
    """What was counted or what differs, in words."""


def judge(settings: Settings, environment: Mapping[str, str], directory: Path, *, exactly_once: bool = True) -> Verdict:
    """Audit the topics, then make the newest version again from the seed by the journal and compare bits.

    The services should have ended. `exactly_once` says whether the broker keeps Kafka's transaction contract; where it
    does not, sessions that come again under the same id are the broker's doing and readers drop them.
    Raises OneRecError where a check cannot be made at all.
    """
    allowed = () if exactly_once else ("--broker-repeats-allowed",)
    audited = _audit(directory / "audit.json", *allowed, environment=environment)
    version = newest_version(settings)
    reproduced = _run("trainer", "reproduce", str(version), "--from-seed", "--json", environment=environment)
    identical = reproduced.returncode == ExitCode.DONE and bool(json.loads(reproduced.stdout)["identical"])
    words = [f"{line['found']} {name}" for name, line in audited["lines"].items() if name in SHOWN]
    failures = [place for place in audited["places"] if place["kind"] in FAILURES]
    words += [f"{place['line']} {place['kind']}: {place['detail']}" for place in failures]
    words.append(f"version {version} {'came out again' if identical else _differs(reproduced)}")
    return Verdict(audited["lost"], audited["duplicated"], audited["wrong"], identical, ", ".join(words))


def newest_version(settings: Settings) -> int:
    """By the journal. Raises CheckFailedError where there is none."""
    published = [0]

    def keep(received: Received) -> None:
        if received.record.kind is JournalKind.PUBLISH:
            published.append(received.record.version)

    follower = TopicFollower(settings.kafka, TRAINER_JOURNAL, keep, service="chaos")
    follower.catch_up(READ_TIMEOUT_S)
    follower.close()
    if max(published) == 0:
        raise CheckFailedError("The run has published no version.", "See the trainer's log.")
    return max(published)


def _audit(file: Path, *allowed: str, environment: Mapping[str, str]) -> dict[str, Any]:
    done = _run("audit", "--json", str(file), *allowed, environment=environment)
    if done.returncode not in (ExitCode.DONE, ExitCode.CHECK_FAILED):
        raise CheckFailedError(
            f"The audit ended with code {done.returncode}: {done.stderr[-2000:]}", "Run `onerec audit` by hand."
        )
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _differs(reproduced: subprocess.CompletedProcess[str]) -> str:
    return f"did not come out again: {(reproduced.stdout + reproduced.stderr)[-1000:].strip()}"


def _run(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command as a person would run it: with code and memory of its own."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
