"""Every service and command with a secret in each place that takes one: no output, metric or command line holds it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from onerec.processes import free_port
from onerec.secrets import HIDDEN
from onerec.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
CANARY = "canary-0815"
LONGEST_S = 150.0
GOES_ON = ("stream", "joiner")
"""Finds nothing wrong before there is something to join: it is looked at, and ended at last."""
COMMANDS = (
    ("stream", "tokenizer"),
    GOES_ON,
    ("stream", "codebook"),
    ("stream", "replay", "--only", "items", "--events", "1"),
    ("trainer", "run"),
    ("inference", "worker"),
    ("inference", "sampler"),
    ("evaluation", "report"),
    ("onerec", "config"),
    ("onerec", "check"),
    ("onerec", "topics", "check"),
    ("onerec", "topics", "rights"),
    ("onerec", "versions", "list"),
    ("onerec", "versions", "pin", "1"),
    ("onerec", "recommend", "1", "--timeout", "1"),
)


@dataclass
class Started:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def seen(self) -> str:
        """What others can see while it runs."""
        try:
            shown = Path(f"/proc/{self.process.pid}/cmdline").read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                return shown + str(answer.read().decode())
        except (OSError, urllib.error.URLError):  # it has ended, or has no metrics
            return ""


@contextmanager
def started(command: tuple[str, ...], environment: dict[str, str], folder: Path) -> Iterator[Started]:
    port, log = free_port(), folder / f"{'-'.join(command)}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment | {"ONEREC_METRICS__PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield Started(process, port, log)
    finally:
        process.kill()
        process.wait()


def environment_of(kafka: KafkaSettings, folder: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ONEREC_")}
    key = folder / "signing.key"
    key.write_text(f"{CANARY}-key-{'0' * 32}\n")
    return clean | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "ONEREC_LOG": "DEBUG",
        "ONEREC_MODEL__PRESET": "tiny",
        "ONEREC_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "ONEREC_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "ONEREC_KAFKA__GROUP_PREFIX": kafka.group_prefix,
        "ONEREC_KAFKA__PARTITIONS": str(kafka.partitions),
        "ONEREC_KAFKA__SASL_PASSWORD": f"{CANARY}-password",
        "ONEREC_KAFKA__LIBRDKAFKA": f'{{"ssl.key.password": "{CANARY}-1", "sasl.oauthbearer.config": "{CANARY}-2"}}',
        "ONEREC_KAFKA__SCHEMA_REGISTRY_URL": f"http://user:{CANARY}-registry@127.0.0.1:1",
        "ONEREC_STORE__STATE_DIR": str(folder / "state"),
        "ONEREC_STORE__SIGNING_KEY_FILE": str(key),
        "ONEREC_STORE__VERIFY_KEY_FILE": str(key),
        **more,
    }


def everything_shown(environment: dict[str, str], folder: Path, commands: Sequence[tuple[str, ...]] = COMMANDS) -> str:
    """Output, metrics and command lines of these commands, which run at the same time."""
    shown = ""
    with ExitStack() as stack:
        running = {command: stack.enter_context(started(command, environment, folder)) for command in commands}
        deadline_s = time.monotonic() + LONGEST_S
        while left := [command for command, one in running.items() if one.process.poll() is None]:
            shown += "".join(running[command].seen() for command in left)
            if left == [GOES_ON] and "python_info" in running[GOES_ON].seen():
                running[GOES_ON].process.terminate()
            assert time.monotonic() < deadline_s, f"{left} go on"
            time.sleep(0.1)
        return shown + "".join(one.log.read_text() for one in running.values())


def test_no_secret_is_shown(kafka: KafkaSettings, tmp_path: Path) -> None:
    store = f"ftp://user:{CANARY}-store@127.0.0.1:1/x?secret={CANARY}-query"
    shown = everything_shown(environment_of(kafka, tmp_path, ONEREC_STORE__URI=store), tmp_path)
    assert HIDDEN in shown
    assert CANARY not in shown, [line for line in shown.splitlines() if CANARY in line]


def test_no_secret_is_shown_where_properties_are_refused(kafka: KafkaSettings, tmp_path: Path) -> None:
    properties = f'{{"sasl.jaas.config": "{CANARY}", "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}}'
    environment = environment_of(kafka, tmp_path, ONEREC_KAFKA__LIBRDKAFKA=properties)
    shown = everything_shown(environment, tmp_path, [("stream", "tokenizer"), ("onerec", "topics", "check")])
    assert "librdkafka does not take its properties" in shown
    assert CANARY not in shown, [line for line in shown.splitlines() if CANARY in line]
