"""The compose stack, for real: image built, Kafka and all services up, a log replayed, a recommendation, all down."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from onerec.cli.up import SERVICES
from onerec.processes import free_port

ROOT = Path(__file__).parents[2]
EVENTS = 200
UP_TIMEOUT_S = 900
ENVIRONMENT = {
    "SEED_BUDGET_S": "5",
    "COMPOSE_PROJECT_NAME": f"onerec-test-{uuid.uuid4().hex[:8]}",
}


def compose_command() -> list[str]:
    """`docker compose` where the plugin is there, else the older docker-compose."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


def engine_missing() -> str | None:
    """Why the stack cannot run here, or None."""
    if shutil.which("docker") is None:
        return "no docker client is installed"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        return "no Docker engine answers"
    command = compose_command()
    return None if shutil.which(command[0]) else "neither docker compose nor docker-compose is installed"


class Stack:
    """The running stack, by the compose command line that a user types."""

    def __init__(self) -> None:
        self._command = [*compose_command(), "-f", str(ROOT / "compose/docker-compose.yml")]
        self._port = str(free_port())

    def __call__(self, *arguments: str, timeout_s: float = 300) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            env={**os.environ, **ENVIRONMENT, "KAFKA_PORT": self._port},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def health(self, service: str) -> str:
        """The health that Docker reports of a service."""
        container = self("ps", "-q", service).strip()
        form = "{{.State.Health.Status}} restarts {{.RestartCount}}"
        return subprocess.run(
            ["docker", "inspect", "-f", form, container], capture_output=True, text=True, check=True
        ).stdout.strip()


@pytest.fixture
def stack() -> Iterator[Stack]:
    missing = engine_missing()
    if missing:
        pytest.skip(f"compose stack not run: {missing}")
    running = Stack()
    try:
        running("build", "topics", timeout_s=UP_TIMEOUT_S)
        running("up", "-d", "--no-build", *SERVICES, timeout_s=UP_TIMEOUT_S)
        yield running
    finally:
        logs = running("logs", "--tail", "20", *SERVICES)
        sys.stdout.write(logs)  # pytest shows it where the test fails
        running("down", "-v", "--remove-orphans", "-t", "2")


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_log_flows_through_the_stack_and_a_user_gets_a_recommendation(stack: Stack) -> None:
    stack(
        "up", "-d", "--no-build", "--wait" if compose_command() == ["docker", "compose"] else "--no-recreate", *SERVICES
    )
    replayed = stack(
        "run",
        "--rm",
        "-T",
        "replay",
        "stream",
        "replay",
        "--only",
        "events",
        "--events",
        str(EVENTS),
        "--max-unanswered",
        "32",
        "--summary",
        "/dev/stdout",
        timeout_s=600,
    )
    summary = json.loads(replayed[replayed.index("{") : replayed.rindex("}") + 1])
    assert summary["exposures"] == EVENTS
    answer = json.loads(stack("run", "--rm", "-T", "replay", "onerec", "recommend", "712", "--json"))
    assert answer["status"] == "answered"
    assert len({item["item_id"] for item in answer["ranked"]}) == len(answer["ranked"]) >= 10
    assert {service: stack.health(service) for service in SERVICES} == dict.fromkeys(SERVICES, "healthy restarts 0")
