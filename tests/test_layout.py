"""The folders are the architecture: every generic top-level name must resolve inside this repository."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "onerec", "stream", "trainer", "inference", "evaluation", "audit", "chaos", "bench")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_resolves_inside_the_repository(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT), f"another distribution installed a top-level {package}"


@pytest.mark.parametrize(
    "command",
    [("stream",), ("trainer",), ("inference",), ("evaluation",), ("audit",), ("chaos",), ("bench",), ("onerec",)],
)
def test_services_start_as_modules_and_name_their_commands(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_commands_load_no_torch_before_they_need_it() -> None:
    """Start-up of each process counts: the demo starts ten of them."""
    program = "import sys, json, onerec.cli.app, stream.__main__; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
