"""A cluster of three loses the node that leads what the system is at: data, journal, group, transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice

from chaos.brokers import Broker
from chaos.cluster import NODES, KafkaCluster
from chaos.fault import Context, Fault, Outcome
from chaos.kafka_process import kafka_home
from chaos.leaders import Leaders
from chaos.system import System
from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from onerec.settings import KafkaSettings
from schemas.topics import SESSIONS, TRAINER_JOURNAL

KILLS_LONG, KILLS_SHORT = 4, 2
"""Each of `leaders_of` once, or half of them."""
LONGEST_LIFE_S = 4.0
WORK_TIMEOUT_S = 60.0
LIVING = ("sessions", "steps", "versions", "answers")


def run(context: Context) -> Outcome:
    """SIGKILL to a leader, wait until the system works on the two that are left, start it again, and so on."""
    with cluster_of(context) as cluster, context.system(cluster.kafka) as system:
        led = leaders_of(system.settings.kafka, cluster.leaders)
        kills, longest_s, all_worked = KILLS_LONG if context.long else KILLS_SHORT, 0.0, True
        with system.feeding():
            for what, leader in islice(cycle(led.items()), kills):
                system.tend(context.rng.uniform(0.5, LONGEST_LIFE_S))
                node = leader()
                context.say(f"SIGKILL to node {node}, which leads {what}")
                cluster.kill(node)
                worked_s = seconds_until_work(system)
                longest_s, all_worked = max(longest_s, worked_s or WORK_TIMEOUT_S), all_worked and worked_s is not None
                cluster.start(node)
                cluster.leaders.wait_in_sync(NODES)
        seen = f"{kills} leaders killed; everything worked again on two nodes after at most {longest_s:.0f} s"
        return context.judge(system, kills=kills, seen=seen, vacuous=not all_worked)


@contextmanager
def cluster_of(context: Context) -> Iterator[KafkaCluster]:
    """The run's, or one for this fault alone."""
    if context.broker.cluster is not None:
        yield context.broker.cluster
        return
    with KafkaCluster(context.directory / "cluster") as cluster:
        yield cluster


def leaders_of(kafka: KafkaSettings, leaders: Leaders) -> dict[str, Callable[[], int]]:
    """What the system is at, and who leads it."""
    return {
        "sessions": lambda: leaders.of_partition(clients.topic_name(kafka, SESSIONS), 0),
        "the joiner's transactions": lambda: leaders.of_transactions(
            f"{kafka.topic_prefix}{kafka.group_prefix}joiner-0"
        ),
        "the worker's group": lambda: leaders.of_group(f"{kafka.group_prefix}worker"),
        "the trainer's journal": lambda: leaders.of_partition(clients.topic_name(kafka, TRAINER_JOURNAL), 0),
    }


def seconds_until_work(system: System) -> float | None:
    """How long from now until everything of LIVING has come out; None where that takes too long."""
    begun_s = time.monotonic()
    before = system.progress.output()
    while time.monotonic() - begun_s < WORK_TIMEOUT_S:
        system.tend(0.2)
        now = system.progress.output()
        if all(now[name] > before[name] for name in LIVING):
            return time.monotonic() - begun_s
    return None


def no_kafka(_broker: Broker) -> str | None:
    """Why no cluster can be started here; None where one can."""
    try:
        kafka_home()
    except DependencyMissingError as error:
        return error.problem
    return None


FAULT = Fault(
    name="cluster-leader-kill",
    injected="three nodes, replication 3, two in sync: SIGKILL to the leader of sessions and of the journal, to the "
    "coordinator of the worker's group and of the joiner's transactions, by turns",
    promise="work goes on with the two that are left; nothing lost, nothing twice, the weights are the same bits",
    run=run,
    missing=no_kafka,
)
