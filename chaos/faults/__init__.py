"""One fault a file, each with a FAULT; REGISTRY has them in the order in which they are run."""

from chaos.fault import Fault
from chaos.faults import (
    broker_restart,
    cluster_leader_kill,
    container_leader,
    container_trainer,
    joiner_zombie,
    overload,
    rebalance_storm,
    sigkill,
    stalled_joiner,
    stalled_trainer,
    stalled_worker,
    store_away,
)

REGISTRY: tuple[Fault, ...] = (
    sigkill.FAULT,
    rebalance_storm.FAULT,
    stalled_joiner.FAULT,
    joiner_zombie.FAULT,
    stalled_worker.FAULT,
    stalled_trainer.FAULT,
    store_away.FAULT,
    broker_restart.FAULT,
    cluster_leader_kill.FAULT,
    container_leader.FAULT,
    container_trainer.FAULT,
    overload.FAULT,
)
