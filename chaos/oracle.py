"""What is true of a run afterwards: what is lost, what is there twice, and whether its weights come out again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.report import summarise
from onerec.errors import CheckFailedError, ExitCode
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.settings import Settings
from schemas.records import JournalKind
from schemas.topics import TRAINER_JOURNAL

TIMEOUT_S = 600.0
READ_TIMEOUT_S = 60.0


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
    report = summarise(settings.kafka)
    silent = report["unanswered"] - report["overloaded"] - report["refused"]
    lost = report["lost"] + report["pairs_lost"] + silent
    duplicated = report["duplicated"] + report["pairs_duplicated"] + exactly_once * report["sessions_repeated"]
    wrong = 0
    words = [f"{report['sessions']} sessions, {report['requests']} requests, {report['steps']} steps"]
    if importlib.util.find_spec("audit") is not None:
        allowed = () if exactly_once else ("--broker-repeats-allowed",)
        audited = _audit(environment, directory / "audit.json", *allowed)
        lost += audited["lost"]
        duplicated += audited["duplicated"]
        wrong += audited["wrong"]
        words.append(f"audit: {audited['lost']} lost, {audited['duplicated']} twice, {audited['wrong']} wrong")
    version, sha256 = newest_version(settings)
    identical, told = _reproduced(settings, environment, directory, version, sha256)
    return Verdict(lost, duplicated, wrong, identical, "; ".join([*words, told]))


def newest_version(settings: Settings) -> tuple[int, str]:
    """Number and SHA-256 of the newest version by the journal. Raises CheckFailedError where there is none."""
    published: dict[int, str] = {}

    def keep(received: Received) -> None:
        entry = received.record
        if entry.kind is JournalKind.PUBLISH:
            published[entry.version] = entry.weights_sha256

    follower = TopicFollower(settings.kafka, TRAINER_JOURNAL, keep, service="chaos")
    follower.catch_up(READ_TIMEOUT_S)
    follower.close()
    if not published:
        raise CheckFailedError("The run has published no version.", "See the trainer's log.")
    version = max(published)
    return version, published[version]


def _audit(environment: Mapping[str, str], file: Path, *allowed: str) -> dict[str, Any]:
    done = _run("audit", "--json", str(file), *allowed, environment=environment)
    if done.returncode not in (ExitCode.DONE, ExitCode.CHECK_FAILED):
        raise CheckFailedError(f"The audit ended with code {done.returncode}: {done.stderr[-2000:]}", "See above.")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _reproduced(
    settings: Settings, environment: Mapping[str, str], directory: Path, version: int, sha256: str
) -> tuple[bool, str]:
    if importlib.util.find_spec("trainer.reproduce") is None:
        from chaos.rerun import rerun  # noqa: PLC0415 - loads torch

        made = rerun(settings, directory / "state" / "trainer" / "trainer")
        same = made == sha256
        return same, f"version {version} {'came out again' if same else f'is {sha256[:12]}, but {made[:12]} came out'}"
    done = _run("trainer", "reproduce", str(version), "--from-seed", "--json", environment=environment)
    same = done.returncode == ExitCode.DONE
    told = "came out again" if same else f"did not come out again: {(done.stdout + done.stderr)[-1000:].strip()}"
    return same, f"version {version} {told}"


def _run(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
