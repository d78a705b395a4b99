"""Fixtures of all tests: the broker, and settings with topics of the test's own."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from onerec.kafka import admin
from onerec.settings import KafkaSettings
from tests import broker as brokers
from tests.broker import Broker, UnavailableError

RAN_ON = pytest.StashKey[list[str]]()
SLOW_S = 10.0
"""What a test marked `slow` takes at least."""
RANDOM = "ONEREC_TEST_RANDOM"
"""With this variable set, property tests look at examples of their own choice, others in each run."""
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=RANDOM not in os.environ)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAN_ON] = []
    config.pluginmanager.register(_Workers(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest tests first: at the end no process is left alone with one of them."""
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), _length_s(item))
    items.sort(key=lambda item: -longest[item.path])


def _length_s(item: pytest.Item) -> float:
    """A guess at how long the test takes, from its marks: who may take longer does."""
    timeout = item.get_closest_marker("timeout")
    if timeout is not None:
        return float(timeout.args[0])
    return SLOW_S if item.get_closest_marker("slow") else 0.0


def pytest_collection_finish() -> None:
    """All modules that stay to the end: the collections between the tests need not walk over them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _kernels_of_its_own() -> Iterator[None]:
    """A trainer in this process chooses kernels for the process: the next test begins with torch's again."""
    yield
    if "onerec.model.backend" in sys.modules:
        sys.modules["onerec.model.backend"].use(None)


def pytest_report_header() -> str:
    return f"kafka: {brokers.plan()}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ran_on"] = session.config.stash[RAN_ON]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for where in config.stash[RAN_ON]:
        terminalreporter.write_line(f"kafka: broker tests ran on {where}")


class _Workers:
    """Collects what the processes of a parallel run tell: each has a broker of its own."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._config.stash[RAN_ON].extend(getattr(node, "workeroutput", {}).get("ran_on", []))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The broker that this run tests on; tests/broker.py says how it is chosen."""
    try:
        with brokers.running_broker(tmp_path_factory.mktemp("broker")) as running:
            where = f"{running.kind} ({running.bootstrap_servers})"
            pytestconfig.stash[RAN_ON].append("; ".join([where, *running.passed_over]))
            yield running
    except UnavailableError as error:
        pytest.exit(f"no broker for the tests: {error}", returncode=3)


@pytest.fixture(autouse=True)
def _exactly_once(request: pytest.FixtureRequest) -> None:
    """Skip what is marked `exactly_once` on a broker that cannot judge it."""
    if request.node.get_closest_marker("exactly_once") is None:
        return
    running: Broker = request.getfixturevalue("broker")
    if not running.exactly_once:
        pytest.skip(f"the {running.kind} broker does not keep Kafka's transaction contract: use a container or Kafka")


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """As `tmp_path`, in memory where the machine has such a folder: for tests that open state hundreds of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="onerec-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def abandoned(broker: Broker) -> Iterator[list[KafkaSettings]]:
    """Whose topics are to be deleted: those of the test before, once nothing holds its clients any more.

    librdkafka has been seen to crash in clients that ask for the metadata of topics that were deleted under them.
    """
    waiting: list[KafkaSettings] = []
    yield waiting
    _delete_topics(waiting)


@pytest.fixture
def bare_kafka(broker: Broker, abandoned: list[KafkaSettings]) -> Iterator[KafkaSettings]:
    """Settings for the broker with prefixes of the test's own and two partitions by user; no topic exists."""
    _delete_topics(abandoned)
    unique = uuid.uuid4().hex[:8]
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"t{unique}-",
        group_prefix=f"g{unique}-",
        partitions=2,
    )
    yield settings
    abandoned.append(settings)


def _delete_topics(abandoned: list[KafkaSettings]) -> None:
    gc.collect()  # clients that only a cycle holds, such as an exception and its frames
    while abandoned:
        brokers.delete_topics(abandoned.pop())


@pytest.fixture
def kafka(bare_kafka: KafkaSettings) -> KafkaSettings:
    """As `bare_kafka`, with all topics made."""
    admin.create_topics(bare_kafka)
    return bare_kafka
