"""`onerec demo --profile`: where the services' time goes, as files that others' viewers open.

Python of every service is sampled from outside by py-spy while the log flows, for speedscope.app. What torch does in
trainer and worker they record themselves, see `onerec.tracing`.
"""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from onerec.errors import DependencyMissingError
from onerec.processes import die_with_parent

LOG = logging.getLogger(__name__)
RATE_HZ = 50
SAMPLED_S = 60
WRITE_S = 30.0
REMEDY = "pip install 'onerec-stream[profile]'"


@dataclass(slots=True)
class Sampling:
    """Samples processes from `begin` to `end`, for SAMPLED_S at most."""

    folder: Path
    _samplers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def begin(self, process_ids: dict[int, str]) -> None:
        """Look at these processes, by id and name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for pid, name in process_ids.items():
            with (self.folder / f"{name}.py-spy.log").open("wb") as log:
                self._samplers[name] = subprocess.Popen(
                    [
                        *(sampler(), "record", "--pid", str(pid), "--nonblocking", "--threads"),
                        *("--rate", str(RATE_HZ), "--duration", str(SAMPLED_S)),
                        *("--format", "speedscope", "--output", str(self.file(name))),
                    ],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
                )

    def end(self) -> list[Path]:
        """Have the files written; those that are there. Says why one is not: a profile is no reason to fail."""
        for process in self._samplers.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for name, process in self._samplers.items():
            try:
                process.wait(WRITE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if not self.file(name).is_file():
                LOG.warning(
                    "no profile of %s: see %s; where the kernel forbids it, run as root or set "
                    "kernel.yama.ptrace_scope to 0",
                    name,
                    self.folder / f"{name}.py-spy.log",
                )
        return [self.file(name) for name in self._samplers if self.file(name).is_file()]

    def file(self, name: str) -> Path:
        """Where the profile of a service goes."""
        return self.folder / f"{name}.speedscope.json"


def sampler() -> str:
    """The py-spy of this environment. Raises DependencyMissingError where there is none."""
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        raise DependencyMissingError("A profile needs py-spy, which is not installed.", f"{REMEDY}.")
    return found
