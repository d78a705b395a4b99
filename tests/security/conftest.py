"""One secured Apache Kafka for these tests, its topics, and the rights of the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.kafka_process import kafka_home
from onerec.errors import DependencyMissingError
from onerec.kafka import admin
from onerec.kafka.access import missing_rights
from onerec.kafka.admin import WatchedAdmin
from onerec.kafka.rights import USERS, Right, rights
from onerec.settings import Settings
from tests.security.secured import AccessRules, SecuredKafka

NOBODY = "nobody"
"""May log in, and then do nothing."""


@pytest.fixture(scope="package")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Apache Kafka at KAFKA_HOME with TLS, SCRAM and access rules; topics are made, and no rights granted."""
    try:
        home = kafka_home()
    except DependencyMissingError as error:
        pytest.skip(f"no Apache Kafka to configure: {error}")
    with SecuredKafka(home, tmp_path_factory.mktemp("secured"), [*USERS, NOBODY]) as kafka:
        admin.create_topics(kafka.admin.model_copy(update={"partitions": 2}))
        yield kafka


@pytest.fixture(scope="package")
def table(secured: SecuredKafka) -> list[Right]:
    """The table of rights with the prefixes of these tests."""
    return rights(Settings(kafka=secured.admin))


@pytest.fixture(scope="package")
def rules(secured: SecuredKafka, table: list[Right]) -> AccessRules:
    """The access rules: those of the table, which a test may change for a while."""
    rules = AccessRules(secured)
    rules.grant(table)
    # The first question about groups that this broker hears: it has none loaded, and whoever asks must live with that.
    missing_rights(WatchedAdmin(secured.settings("worker")), [right for right in table if right.user == "worker"])
    return rules
