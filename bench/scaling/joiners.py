"""Joiners of one group: each number of them joins the same stream, from the beginning, in a system of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from bench.brokers import broker_of, no_settings_of_the_shell
from bench.joining import feed
from bench.joining.progress import follow
from bench.joining.runs import RULES
from bench.scaling.group import Group, processor_s
from chaos.configuration import toml
from onerec.demo.supervisor import Supervisor
from onerec.settings import KafkaSettings

LOG = logging.getLogger(__name__)
TIMEOUT_S = 180.0
PER_S = 30.0
"""Requests in a second of event time: windows close within a short stream as well."""


def measure(directory: Path, processes: Sequence[int], events: int) -> tuple[list[Group], str]:
    """Each number of joiners in turn, and which broker. Raises OneRecError where they cannot run."""
    directory.mkdir(parents=True, exist_ok=True)
    with broker_of(directory) as (servers, broker), no_settings_of_the_shell():
        partitions = max(4, *processes)
        systems = [
            KafkaSettings(bootstrap_servers=servers, topic_prefix=f"{n}-", group_prefix=f"{n}-", partitions=partitions)
            for n in processes
        ]
        feed.feed_ours(systems, events, PER_S)
        groups = []
        for count, kafka in zip(processes, systems, strict=True):
            groups.append(_join(directory / f"joiners-{count}", kafka, count, events))
            LOG.info("joiners: %s", groups[-1])
    return groups, broker


def _join(directory: Path, kafka: KafkaSettings, count: int, events: int) -> Group:
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "onerec.toml"
    tables = {"kafka": kafka.model_dump(mode="json", exclude_none=True), "stream": {"joiner": RULES}}
    config.write_text(toml(tables))
    environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with Supervisor(directory, environment) as supervisor:
        begun_s = time.monotonic()
        services = [
            supervisor.start(f"joiner-{number}", "stream", "joiner", ONEREC_STREAM__JOINER__INSTANCE=str(number))
            for number in range(count)
        ]
        first = services[0].process
        assert first is not None
        rates = follow(
            first,
            services[0].log,
            bootstrap_servers=kafka.bootstrap_servers,
            group=f"{kafka.group_prefix}joiner",
            topics=[f"{kafka.topic_prefix}{name}" for name in ("impressions", "actions")],
            partitions=kafka.partitions,
            events=events,
            timeout_s=TIMEOUT_S,
        )
        passed_s, used_s = time.monotonic() - begun_s, processor_s(supervisor.process_ids())
    return Group(count, rates.all, 1000 * used_s / events, used_s / passed_s)
