"""A cluster in containers whose leaders fall silent: cut off the network, or paused, past their session."""

from __future__ import annotations

from chaos.brokers import Broker
from chaos.cluster import NODES, SESSION_TIMEOUT_MS
from chaos.containers import ContainerCluster, engine_missing, node_name
from chaos.fault import Context, Fault, Outcome
from chaos.faults.cluster_leader_kill import WORK_TIMEOUT_S, leaders_of, seconds_until_work

LONGEST_LIFE_S = 4.0
AFTER_S = 2 * SESSION_TIMEOUT_MS / 1000
"""A node comes back when everything works without it, but not before it has lost its session."""


def run(context: Context) -> Outcome:
    """Cut off, then paused; each comes back believing that it leads."""
    longest_s, all_worked = 0.0, True
    with ContainerCluster() as cluster, context.system(cluster.kafka) as system:
        ways = (("cut off", cluster.cut, cluster.join), ("paused", cluster.pause, cluster.unpause))
        led = context.rng.sample(list(leaders_of(system.settings.kafka, cluster.leaders).items()), len(ways))
        with system.feeding():
            for (said, away, back), (what, leader) in zip(ways, led, strict=True):
                system.tend(context.rng.uniform(0.5, LONGEST_LIFE_S))
                node = leader()
                context.say(f"node {node}, which leads {what}, is {said}")
                away(node_name(node))
                worked_s = seconds_until_work(system)
                longest_s, all_worked = max(longest_s, worked_s or WORK_TIMEOUT_S), all_worked and worked_s is not None
                system.tend(AFTER_S)
                back(node_name(node))
                cluster.leaders.wait_in_sync(NODES)
        named = " and ".join(f"of {what} {said}" for (said, _, _), (what, _) in zip(ways, led, strict=True))
        seen = f"the leader {named}; everything worked again after at most {longest_s:.0f} s"
        return context.judge(system, seen=seen, vacuous=not all_worked)


def no_containers(_broker: Broker) -> str | None:
    """Why no containers can be started here; None where they can."""
    return engine_missing()


FAULT = Fault(
    name="container-leader",
    injected="three nodes in containers: a leader is cut off the network (docker network disconnect) or paused "
    "(docker pause) past its session, by turns, and comes back",
    promise="work goes on with the two that are left, and what the silent leader took alone does not count",
    run=run,
    missing=no_containers,
)
