"""The embedded broker is one's own, answers once it is there, and ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from onerec.errors import DependencyMissingError
from onerec.kafka import admin
from onerec.kafka.embedded import EmbeddedBroker, broker_binary
from onerec.settings import KafkaSettings
from tests.kafka.reading import until_it_raises

PARENT = """
import signal, sys
from pathlib import Path
from onerec.kafka.embedded import EmbeddedBroker
with EmbeddedBroker(Path(sys.argv[1])) as broker:
    print(broker.pid, broker.bootstrap_servers, flush=True)
    signal.pause()
"""


def test_each_has_its_own_cluster_and_port(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "a") as one, EmbeddedBroker(tmp_path / "b") as other:
        assert one.bootstrap_servers != other.bootstrap_servers
        assert one.bootstrap_servers.startswith("127.0.0.1:")
        ids = [admin.cluster_id(KafkaSettings(bootstrap_servers=each.bootstrap_servers)) for each in (one, other)]
        assert ids == [one.cluster_id, other.cluster_id]
        assert ids[0] != ids[1]
        assert one.log.stat().st_size > 0
    with EmbeddedBroker(tmp_path / "a") as again:
        assert again.cluster_id not in ids


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-c", PARENT, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        pid, servers = parent.stdout.readline().split()
        broker = psutil.Process(int(pid))
        admin.wait_for_broker(KafkaSettings(bootstrap_servers=servers))
        os.kill(parent.pid, signal.SIGKILL)
        psutil.wait_procs([broker], timeout=60)
        assert not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE


def test_its_end_is_reported(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        broker.check()
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(DependencyMissingError, match=r"(?s)embedded broker ended with code -9.*broker\.log"):
            until_it_raises(broker.check)


def test_a_broker_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot bind >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(broken))
    with pytest.raises(DependencyMissingError, match="ended with code 7: cannot bind"):
        EmbeddedBroker(tmp_path).start()
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "none"))
    with pytest.raises(DependencyMissingError, match=r"no binary.*kafka\.bootstrap_servers"):
        EmbeddedBroker(tmp_path).start()


FIRST_USE = """
import subprocess
from onerec.kafka.embedded import broker_binary

binary = broker_binary()
for _ in range(20):
    subprocess.run([binary, "--version"], check=True, stdout=subprocess.DEVNULL)
"""


def test_processes_that_need_the_broker_for_the_first_time_at_once_can_all_start_it(tmp_path: Path) -> None:
    for home in (tmp_path / str(number) for number in range(5)):  # each a race of its own
        command, environment = [sys.executable, "-c", FIRST_USE], os.environ | {"HOME": str(home)}
        processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(6)]
        told = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes), told


def test_without_a_home_to_write_to_it_says_what_to_do_and_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = broker_binary()
    home = tmp_path / "home"
    home.write_text("no folder")
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(DependencyMissingError, match=rf"{home}/\.calfkit.*CALF_TANSU_BIN"):
        broker_binary()
    monkeypatch.setenv("CALF_TANSU_BIN", binary)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        assert admin.cluster_id(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) == broker.cluster_id
