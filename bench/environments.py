"""Environments for peers whose dependencies are not ours: what they bring must not change what the product runs on.

Each is a virtual environment below the user's cache that sees this one's packages (torch above all) and puts the
peer's own before them. It is made by the first bench that needs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from onerec.errors import DependencyMissingError

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "decoding": (
        "transformers>=5.0,<6",  # T5 and its generate; wants a newer click than Faust allows
        "ctranslate2>=4.6,<5",  # the same model in C++
    ),
    "clustering": ("faiss-cpu>=1.9,<2",),  # K-means
    "quixstreams": ("quixstreams>=3.20,<4",),  # wants an older confluent-kafka than we do
}
INSTALL_TIMEOUT_S = 600.0


class PeerMissingError(DependencyMissingError):
    """What a peer needs is not on this machine: the bench says so and gives no figure for it."""


def cache_folder() -> Path:
    """Where the environments lie."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cached / "onerec-stream" / "bench"


def interpreter(name: str) -> str:
    """The Python of this environment, made where it is not there. Raises PeerMissingError where pip cannot."""
    site_packages = sysconfig.get_path("purelib")
    wanted = "\n".join((sys.version, site_packages, *REQUIREMENTS[name]))
    folder = cache_folder() / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        own = next(folder.glob("lib/python*/site-packages"))
        (own / "ours.pth").write_text(site_packages + "\n")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *REQUIREMENTS[name]])
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise PeerMissingError(
            f"{', '.join(REQUIREMENTS[name])} cannot be installed: {str(said).strip()[-300:]}",
            "Give pip a way to a package index.",
        ) from error
    (folder / "complete").touch()
    return str(python)


def _run(command: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, env=environment)
