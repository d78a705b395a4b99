"""The table of rights: shown as it is, granted as it says, and each right missed when it is taken away."""

from __future__ import annotations

import dataclasses
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.kafka_process import kafka_home
from onerec.errors import DependencyMissingError
from onerec.kafka.access import missing_rights, require_rights
from onerec.kafka.admin import WatchedAdmin
from onerec.kafka.rights import USERS, Operation, Resource, Right, commands, markdown, rights
from onerec.service import Stop
from onerec.settings import Settings, load_settings
from schemas.topics import TOPICS
from stream.joiner.service import run_joiner
from tests.security.conftest import NOBODY
from tests.security.secured import AccessRules, SecuredKafka, bindings_of
from trainer.announcement import Announcer

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def onerec(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "onerec", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(holds: Callable[[], bool]) -> None:
    """A broker takes a moment to act on changed rules."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_the_documentation_shows_the_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert markdown(rights(Settings())) in text, "put the output of `onerec topics rights --markdown` there"


def test_every_topic_has_a_writer_and_a_reader() -> None:
    granted = rights(Settings())
    for operation in (Operation.WRITE, Operation.READ):
        names = {right.name for right in granted if operation in right.operations and right.user != "operator"}
        without = {topic.name for topic in TOPICS} - names
        assert without == ({"recommendations-shadow"} if operation is Operation.WRITE else set())


def test_names_are_those_of_the_settings() -> None:
    settings = load_settings(
        kafka={"topic_prefix": "t.", "group_prefix": "g."},
        model={"name": "m"},
        inference={"worker": {"group": "shadow", "output_topic": "recommendations-shadow", "pin_version": 1}},
    )
    found = {(right.resource, right.name) for right in rights(settings, ["worker", "joiner", "trainer"])}
    assert {(Resource.TOPIC, "t.recommendations-shadow"), (Resource.GROUP, "g.shadow")} <= found
    assert {(Resource.TRANSACTIONAL_ID, "t.g.joiner-"), (Resource.TRANSACTIONAL_ID, "t.g.trainer-m")} <= found
    assert not any(name == "t.recommendations" for _, name in found)


def test_the_command_prints_it() -> None:
    shown = json.loads(onerec("topics", "rights", "--json", "--user", "joiner"))
    assert shown == json.loads(json.dumps([dataclasses.asdict(right) for right in rights(Settings(), ["joiner"])]))
    assert onerec("topics", "rights", "--commands").splitlines() == list(commands(Settings(), rights(Settings())))


def test_nothing_is_asked_where_nobody_logs_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.setblocking(False)
        require_rights(load_settings(kafka={"bootstrap_servers": f"127.0.0.1:{broker.getsockname()[1]}"}), "joiner")
        with pytest.raises(BlockingIOError):  # nobody has connected
            broker.accept()


@pytest.mark.broker
@pytest.mark.slow
def test_the_printed_commands_grant_the_table(secured: SecuredKafka, rules: AccessRules) -> None:
    settings = Settings(kafka=secured.admin)
    every = rights(settings, ["joiner"])  # of each kind one command: each starts a Java
    granted = [right for right in every if right.resource is not Resource.TOPIC or len(right.operations) > 1]
    wanted = {binding for right in granted for binding in bindings_of(right)}
    renamed = [dataclasses.replace(right, user="by-command") for right in granted]
    run_class = str(kafka_home() / "bin" / "kafka-run-class.sh")  # kafka-acls.sh is this with Kafka 4's class
    for command in commands(settings, renamed):
        words = [word for word in shlex.split(command)[1:] if word not in ("--command-config", "admin.properties")]
        done = subprocess.run(
            [run_class, "org.apache.kafka.tools.AclCommand", *words], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    what = {(b.restype, b.name, b.resource_pattern_type, b.operation) for b in wanted}
    until(lambda: {(b.restype, b.name, b.resource_pattern_type, b.operation) for b in rules.of("by-command")} == what)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize("user", USERS)
def test_each_right_is_missed_by_its_name(
    user: str, secured: SecuredKafka, rules: AccessRules, table: list[Right]
) -> None:
    needed = [right for right in table if right.user == user]
    client = WatchedAdmin(secured.settings(user))
    until(lambda: missing_rights(client, needed) == [])
    for right in needed:
        if right.resource is Resource.TRANSACTIONAL_ID:
            continue
        for operation in right.operations:
            if operation is Operation.DESCRIBE and right.resource is Resource.TOPIC:
                continue  # the others on the topic include it
            one = dataclasses.replace(right, operations=(operation,))
            with rules.without(one):
                until(lambda one=one: missing_rights(client, needed) == [one])  # type: ignore[misc]
    until(lambda: missing_rights(client, needed) == [])


@pytest.mark.broker
def test_the_sentence_names_user_right_and_remedy(secured: SecuredKafka) -> None:
    settings = Settings(kafka=secured.settings(NOBODY))
    with pytest.raises(DependencyMissingError) as raised:
        require_rights(settings, "sampler")
    sentence = str(raised.value)
    assert raised.value.exit_code == 3
    assert "denies user nobody what the sampler needs" in sentence
    for right in ("Read on topic t-requests", "Write on topic t-preferences", "Read on group g-sampler"):
        assert right in sentence
    assert "`onerec topics rights --user sampler --commands`" in sentence


@pytest.mark.broker
@pytest.mark.slow
def test_a_transactional_id_that_is_denied_is_named(
    secured: SecuredKafka, rules: AccessRules, table: list[Right]
) -> None:
    denied = [right for right in table if right.resource is Resource.TRANSACTIONAL_ID and right.user != "operator"]
    rules.revoke(denied)
    try:
        until(lambda: not {right.name for right in denied} & {b.name for user in USERS for b in rules.of(user)})
        joiner = Settings(kafka=secured.settings("joiner"))
        with pytest.raises(DependencyMissingError, match=r"user joiner \(Write on transactional id t-g-joiner-0\)"):
            run_joiner(joiner, Stop("joiner"))
        announcer = Announcer(secured.settings("trainer"), "onerec", lambda: None)
        with pytest.raises(
            DependencyMissingError, match=r"user trainer \(Write on transactional id t-g-trainer-onerec\)"
        ):
            announcer.take_over()
    finally:
        rules.grant(denied)
