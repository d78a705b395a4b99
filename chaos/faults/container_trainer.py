"""The trainer in a container, cut off the network or paused, while another one takes over; then it comes back."""

from __future__ import annotations

from chaos.containers import ContainerCluster
from chaos.fault import Context, Fault, Outcome
from chaos.faults.container_leader import no_containers
from chaos.system import TRAINER, System
from onerec.errors import DependencyMissingError, ExitCode

WORK_S = 5.0
WORK_TIMEOUT_S = 90.0
END_TIMEOUT_S = 90.0
ENDINGS = {
    "cut off": (ExitCode.CHECK_FAILED, ExitCode.DEPENDENCY_MISSING),  # by how long it was without a broker
    "paused": (ExitCode.CHECK_FAILED,),
}


def run(context: Context) -> Outcome:
    """Cut off first, then paused: each time the second trainer goes on, and the first one ends when it is back."""
    told, fenced = [], True
    with ContainerCluster() as cluster, context.system(cluster.kafka) as system:
        with system.feeding():
            for said, away, back in (
                ("cut off", cluster.cut, cluster.join),
                ("paused", cluster.pause, cluster.unpause),
            ):
                name = f"trainer-{said.replace(' ', '-')}"
                system.stop(*(service for service in system.services if service.endswith(TRAINER)))
                cluster.run_program(name, ("-m", "trainer", "run"), trainer_environment(system), system.directory)
                wait_for_versions(system)
                context.say(f"the trainer is {said}")
                away(name)
                system.wait_ready(system.start_second_trainer())
                wait_for_versions(system)
                back(name)
                code = cluster.exit_code(name, END_TIMEOUT_S)
                (system.directory / "logs" / f"{name}.log").write_text(cluster.output(name))
                told.append(f"{said}: another went on, the first ended with code {code}")
                fenced = fenced and code in ENDINGS[said]
                system.tend(WORK_S)
        return context.judge(system, seen="; ".join(told), broken="" if fenced else "a zombie was not fenced")


def trainer_environment(system: System) -> dict[str, str]:
    """As the supervisor starts the trainer, on its checkpoints."""
    return system.environment | {"ONEREC_STORE__STATE_DIR": str(system.directory.resolve() / "state" / TRAINER)}


def wait_for_versions(system: System, count: int = 2) -> None:
    """Until so many more versions are announced. Raises DependencyMissingError where that takes too long."""
    before, waited_s = system.progress.output()["versions"], 0.0
    while system.progress.output()["versions"] < before + count:
        system.tend(0.5)
        waited_s += 0.5
        if waited_s > WORK_TIMEOUT_S:
            raise DependencyMissingError("The trainer announces nothing.", f"See {system.directory / 'logs'}.")


FAULT = Fault(
    name="container-trainer",
    injected="the trainer in a container is cut off the network, then one is paused (docker); another takes over on "
    "its checkpoints before it comes back",
    promise="the second goes on bit for bit; the first ends with a sentence and code 4 (3 where it was without a "
    "broker for too long), and nothing that it writes counts",
    run=run,
    missing=no_containers,
)
