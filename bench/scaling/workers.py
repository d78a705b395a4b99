"""Workers of one group: the same crowd asks 1, 2 and 4 of them, as fast as it gets answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.brokers import broker_of, no_settings_of_the_shell
from bench.scaling.group import Group, processor_s
from bench.serving import world
from bench.serving.behind_kafka import OUTSTANDING, publish
from chaos.configuration import toml
from chaos.crowd import Crowd
from onerec.demo.supervisor import Supervisor
from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.metrics import scrape
from onerec.settings import Settings, load_settings

LOG = logging.getLogger(__name__)
READY_S = 120.0
ANSWER_S = 60.0
WARM_S = 2.0


def measure(directory: Path, processes: Sequence[int], measure_s: float) -> tuple[list[Group], str]:
    """Each number of workers in turn, and which broker. Raises OneRecError where they cannot run."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "onerec.toml"
    with broker_of(directory) as (servers, broker):
        tables = {
            "kafka": {"bootstrap_servers": servers, "partitions": max(4, *processes)},
            "store": {"uri": str((directory / "store").resolve())},
            "model": {"preset": world.PRESET},
            "inference": {"worker": {"deadline_ms": 60_000}},
        }
        config.write_text(toml(tables))
        with no_settings_of_the_shell():
            settings = load_settings(config)
            publish(settings)
            groups = []
            for count in processes:
                with _workers(directory, config, count) as supervisor:
                    groups.append(_ask(settings, supervisor, count, measure_s))
                LOG.info("workers: %s", groups[-1])
    return groups, broker


@contextmanager
def _workers(directory: Path, config: Path, count: int) -> Iterator[Supervisor]:
    """So many, ready to serve, each with a thread and local state of its own."""
    environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with Supervisor(directory / f"workers-{count}", environment) as supervisor:
        for number in range(count):
            supervisor.start(f"worker-{number}", "inference", "worker")
        deadline_s = time.monotonic() + READY_S
        while True:
            if scrape(supervisor.endpoints()).get("onerec_ready") == count:
                break
            supervisor.check()
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(f"{count} workers did not get ready in {READY_S:.0f} s.", "See the logs.")
            time.sleep(0.1)
        yield supervisor


def _ask(settings: Settings, supervisor: Supervisor, count: int, measure_s: float) -> Group:
    with Crowd(settings, list(range(1, world.USERS + 1)), world.SHOWN_MS) as crowd:
        warm = crowd.keep_asking(OUTSTANDING * count, WARM_S)  # all partitions are assigned, histories are there
        crowd.wait(warm, ANSWER_S)
        before_s, begun_s, answered = processor_s(supervisor.process_ids()), time.monotonic(), len(crowd.told)
        asked = crowd.keep_asking(OUTSTANDING * count, measure_s)
        passed_s, used_s = time.monotonic() - begun_s, processor_s(supervisor.process_ids()) - before_s
        answered = len(crowd.told) - answered
        unanswered = crowd.wait(asked, ANSWER_S)
    if unanswered or not answered:
        raise CheckFailedError(f"{unanswered} of {len(asked)} requests have no answer.", "See the workers' logs.")
    return Group(count, answered / passed_s, 1000 * used_s / answered, used_s / passed_s)
