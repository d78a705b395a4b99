"""Libraries in C++ that stand beside Python: compiled once, and found by a digest of their sources and flags."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from onerec.errors import DependencyMissingError

SHARED = Path(__file__).parent
"""Where headers lie that any library may include."""
INCLUDE = f"-I{SHARED}"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")
COMPILE_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Library:
    """Sources that make one shared library."""

    name: str
    """Of its file."""
    main: Path
    """What is compiled; the headers beside it belong to it."""
    flags: tuple[str, ...]
    """Beside FLAGS."""
    what: str
    """As a sentence names it."""
    hint: str = "Its message says what it lacks."
    """What to do where a compiler is there and fails."""

    def path(self) -> Path:
        """Where the library lies, or would lie, for these sources and flags."""
        digest = hashlib.sha256(" ".join(FLAGS + self.flags).encode())
        for source in (*sorted(SHARED.glob("*.h")), *sorted(self.main.parent.glob("*.h")), self.main):
            digest.update(source.read_bytes())
        cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cached / "onerec-stream" / f"{self.name}-{digest.hexdigest()[:16]}.so"

    def build(self) -> Path:
        """Compile the library unless it is there; returns its path.

        Raises DependencyMissingError without a compiler that takes the sources.
        """
        target = self.path()
        if target.exists():
            return target
        compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
        if compiler is None:
            raise DependencyMissingError(f"There is no C++ compiler for {self.what}.", "Install g++ or clang++.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as aside:
            made = Path(aside) / target.name
            command = [compiler, *FLAGS, *self.flags, INCLUDE, "-o", str(made), str(self.main)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
            if done.returncode:
                raise DependencyMissingError(
                    f"{compiler} cannot compile {self.what}: {done.stderr.strip()[:500]}", self.hint
                )
            made.replace(target)  # several may build at once: each renames a whole file
        return target
