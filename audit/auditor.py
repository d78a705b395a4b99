"""One audit: what was committed, where the topics ended, then every partition once."""

from __future__ import annotations

import time
from contextlib import closing

from audit.answered import AnswersAudit
from audit.findings import Findings
from audit.joined import PartitionAudit, Snapshot
from audit.journal import Journal
from audit.learned import Consumable, LearningAudit, Part
from audit.log import Log
from audit.refusals import Refusals
from audit.versions import VersionsAudit
from onerec.kafka.registry import codec
from onerec.settings import Settings
from schemas.topics import (
    ACTIONS,
    DEAD_LETTERS,
    HISTORIES,
    IMPRESSIONS,
    MODEL_VERSIONS,
    PREFERENCES,
    RECOMMENDATIONS,
    REQUESTS,
    SESSIONS,
    TRAINER_JOURNAL,
)

TOPICS = (
    IMPRESSIONS,
    ACTIONS,
    SESSIONS,
    HISTORIES,
    REQUESTS,
    RECOMMENDATIONS,
    PREFERENCES,
    MODEL_VERSIONS,
    TRAINER_JOURNAL,
    DEAD_LETTERS,
)


def run(settings: Settings, *, broker_repeats_allowed: bool = False, first: int = 5) -> Findings:
    """Read the topics as of now and say what is lost, double or wrong, with the first places of each.

    `broker_repeats_allowed`: the broker serves what was aborted, as the embedded one does; a session that comes again
    is then a repetition, which readers drop by its id. Safe beside running services. Raises DependencyMissingError
    for no broker or topic and for a transaction that stays open.
    """
    with closing(Log(settings.kafka, TOPICS)) as log:
        return audit_log(log, settings, broker_repeats_allowed=broker_repeats_allowed, first=first)


def audit_log(log: Log, settings: Settings, *, broker_repeats_allowed: bool, first: int) -> Findings:
    """`run` on topics that are open already."""
    began_s = time.monotonic()
    findings = Findings(first=first)
    journal, versions = _read_trainer(log, settings, findings)
    answered_to = log.committed(settings.inference.worker.group, REQUESTS)
    answer_bounds = log.bounds(RECOMMENDATIONS, PREFERENCES)
    snapshot = Snapshot.take(log, DEAD_LETTERS)
    refusals = Refusals()
    letters = log.messages(DEAD_LETTERS, 0, snapshot.bounds[DEAD_LETTERS.name, 0])
    refusals.read(letters, codec(settings.kafka, DEAD_LETTERS), findings)
    records: dict[Part, Consumable] = {}
    joined = PartitionAudit(log, settings, snapshot, findings, repeats_allowed=broker_repeats_allowed)
    for partition in log.partitions(SESSIONS):
        records[SESSIONS.name, partition] = joined.run(partition, refusals)
    answers = AnswersAudit(log, settings, findings, refusals, committed=answered_to, bounds=answer_bounds)
    for partition in log.partitions(REQUESTS):
        records[PREFERENCES.name, partition] = answers.run(partition)
    if not findings.line(IMPRESSIONS.name).expected:
        findings.notes.append("The joiner's group has committed no impressions: there was nothing to audit it by.")
    LearningAudit(settings, findings, refusals).run(journal.runs[-1], records)
    versions.run(journal.runs, records)
    findings.seconds = time.monotonic() - began_s
    return findings


def _read_trainer(log: Log, settings: Settings, findings: Findings) -> tuple[Journal, VersionsAudit]:
    """Versions before the journal, for the journal is written first; both before what they are about."""
    versions = VersionsAudit(findings, settings.model.name)
    bounds = log.bounds(MODEL_VERSIONS)[MODEL_VERSIONS.name, 0]
    versions.read(log.messages(MODEL_VERSIONS, 0, bounds), codec(settings.kafka, MODEL_VERSIONS))
    journal = Journal(findings, settings.model.name)
    bounds = log.bounds(TRAINER_JOURNAL)[TRAINER_JOURNAL.name, 0]
    journal.read(log.messages(TRAINER_JOURNAL, 0, bounds), codec(settings.kafka, TRAINER_JOURNAL))
    return journal, versions
