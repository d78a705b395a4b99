"""The whole loop by TLS, SCRAM and the table's rights, with signed versions; rights taken away; no secret anywhere."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.report import summarise
from onerec.cli.recommend import ask
from onerec.errors import ExitCode
from onerec.kafka.rights import Operation, Right
from onerec.kafka.writer import RecordWriter
from onerec.secrets import HIDDEN
from onerec.settings import StoreSettings
from onerec.weights.shelf import Shelf
from onerec.weights.signature import verifier_of
from schemas.records import Recommendation, Request, Status
from schemas.topics import REQUESTS, id_key
from tests.security.secured import AccessRules, SecuredKafka, password_of
from tests.security.system import DEADLINE_S, ITEM_COUNT, SERVICES, System
from tests.weights.test_signature import ed25519

pytestmark = [pytest.mark.broker, pytest.mark.slow]
TAKEN = {
    "tokenizer": ("t-item-tokens", Operation.WRITE),
    "joiner": ("t-sessions", Operation.WRITE),
    "trainer": ("t-preferences", Operation.READ),
    "worker": ("t-recommendations", Operation.WRITE),
    "sampler": ("t-preferences", Operation.WRITE),
}
"""By service a right that it needs again and again."""

LAST_VISIT = 20
"""Later ones would be of the future."""


@pytest.fixture
def system(secured: SecuredKafka, rules: AccessRules, tmp_path: Path) -> Iterator[System]:
    keys = ed25519(tmp_path)
    verify = {"ONEREC_STORE__VERIFY_KEY_FILE": str(keys.verify_key_file)}
    sign = {"ONEREC_STORE__SIGNING_KEY_FILE": str(keys.signing_key_file)}
    system = System(secured, tmp_path, {"trainer": sign, "worker": verify, "sampler": verify, "operator": verify})
    with system.supervisor:
        yield system


def requests(deadline_ms: int = 60_000) -> Iterator[Request]:
    for number in itertools.count(time.time_ns() // 1_000_000):
        yield Request(
            request_id=number, user_id=number % 8, time_ms=number, deadline_ms=deadline_ms, produced_ms=number
        )


def taken(table: list[Right]) -> list[Right]:
    found = []
    for right in table:
        name, operation = TAKEN.get(right.user, ("", Operation.CREATE))
        if right.name == name:
            found.append(Right(right.user, right.resource, name, (operation,), right.why))
    assert len(found) == len(TAKEN)
    return found


def test_the_loop_runs_with_the_least_rights_and_tells_of_each_that_is_taken(
    system: System, rules: AccessRules, table: list[Right]
) -> None:
    run_loop(system)
    check_signed(system)
    check_no_secret_shows(system)
    check_rights_are_missed(system, rules, table)
    assert "canary" not in system.logs() + system.output


def run_loop(system: System) -> None:
    """Items, tokens, sessions, versions, answers and pairs."""
    assert "All topics are as they should be" in system.run("operator", "onerec", "topics", "check")
    system.publish_items()
    system.run("operator", "stream", "codebook")
    system.start("tokenizer")
    system.ready("tokenizer")
    for service in set(SERVICES) - {"tokenizer"}:
        system.start(service)
    system.ready(*SERVICES)
    system.publish_events(users=8)
    asked = requests()

    def whole() -> bool:
        answer: Recommendation = ask(system.kafka("client"), next(asked), DEADLINE_S)
        assert answer.status is Status.ANSWERED, answer.reason
        found = summarise(system.kafka("auditor"))
        assert (found["lost"], found["duplicated"], found["dead_letters"]) == (0, 0, 0)
        return bool(found["sessions_trained"] and found["versions_published"] > 1 and found["pairs_trained"])

    system.until(whole)
    assert "version" in system.run("client", "onerec", "recommend", "1", "--timeout", "60")
    system.run("operator", "onerec", "versions", "pin", "1")
    system.run("operator", "onerec", "versions", "unpin")


def check_signed(system: System) -> None:
    """With the public key every version is verified."""
    keys = StoreSettings(verify_key_file=system.folder / "one.pub.pem")
    shelf = Shelf(str(system.folder / "store"), verifier=verifier_of(keys))
    assert [shelf.manifest(version).version for version in shelf.versions()] == shelf.versions()


def check_no_secret_shows(system: System) -> None:
    """Neither passwords nor keys are in command lines, metrics, settings as shown, or logs."""
    shown = system.run("trainer", "onerec", "config")
    assert HIDDEN in shown
    key = (system.folder / "one.pem").read_text().splitlines()[1]
    for text in (shown, system.visible(), system.logs(), system.output):
        assert "canary" not in text
        assert key not in text


def check_rights_are_missed(system: System, rules: AccessRules, table: list[Right]) -> None:
    """A right that is taken away from a running service ends it with a sentence and exit code 3."""
    services = dict(system.supervisor.services)
    rules.revoke(taken(table))
    try:
        end_by_what_they_miss(system)
    finally:
        rules.grant(taken(table))
    for service, (name, operation) in TAKEN.items():
        log = services[service].log.read_text()
        told = (line for line in log.splitlines() if f"user {service} " in line)
        assert any(f"{operation} on topic {name}" in sentence for sentence in told), log[-3000:]


def end_by_what_they_miss(system: System) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    numbers, asked, client = itertools.count(), requests(), RecordWriter(system.kafka("client"))
    while running := [name for name, service in system.supervisor.services.items() if service.running]:
        assert time.monotonic() < deadline_s, f"{running} go on: {system.logs()[-5000:]}"
        number = next(numbers)
        system.publish_items(ITEM_COUNT + number, 1)
        system.publish_events(users=2, visit=min(1 + number, LAST_VISIT))
        client.send(REQUESTS, id_key(1), next(asked))
        client.flush(DEADLINE_S)
    codes = {
        name: service.process and service.process.returncode for name, service in system.supervisor.services.items()
    }
    assert codes == dict.fromkeys(SERVICES, ExitCode.DEPENDENCY_MISSING), system.logs()[-5000:]


def test_a_right_that_is_missing_at_the_start_is_told_at_once(
    system: System, rules: AccessRules, table: list[Right]
) -> None:
    rules.revoke(taken(table))
    try:
        started = {service: system.start(service) for service in SERVICES}
        for service in started.values():
            assert service.process is not None
            assert service.process.wait(DEADLINE_S) == ExitCode.DEPENDENCY_MISSING, service.log.read_text()
    finally:
        rules.grant(taken(table))
    for name, service in started.items():
        log = service.log.read_text()
        assert f"denies user {name} what the {name} needs: {TAKEN[name][1]} on topic {TAKEN[name][0]}." in log, log
        assert password_of(name) not in log
