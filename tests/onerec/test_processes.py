"""Ports for children: nobody else is given one that is still to be taken."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from onerec import processes
from onerec.processes import LOOPBACK, PORTS, free_port

ASKS = """
import sys
from onerec import processes
processes.PORTS = range(int(sys.argv[1]), int(sys.argv[2]))
print(processes.free_port())
"""
FIRST = PORTS.stop + 4 * (os.getpid() % 100)
FEW = range(FIRST, FIRST + 4)
"""Of those that nobody else is given."""


@pytest.mark.skipif(sys.platform != "linux", reason="names of sockets without files are Linux's")
def test_a_port_is_given_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PORTS", FEW)
    given = [free_port() for _ in range(2)]
    command = [sys.executable, "-c", ASKS, str(FEW.start), str(FEW.stop)]
    for _ in range(2):  # the second one gets it again: the first has ended
        given.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        assert given[-1] in FEW
        assert given[-1] not in given[:2]
    with socket.socket() as listener:
        listener.bind((LOOPBACK, next(iter(set(FEW) - set(given[:2])))))
        assert free_port() in FEW
        assert free_port() not in FEW, "all of the few are taken, so it is any other"
