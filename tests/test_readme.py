"""What the README tells a newcomer to type exists, and its figures are those of the committed report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onerec.demo.readme import MARKED, REPORT, table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
RUN_AS_WRITTEN = ("config", "model")


def onerec_commands() -> list[list[str]]:
    inline = re.findall(r"`(onerec [^`]+)`", README)
    return [command.replace(".venv/bin/", "").split()[1:] for command in [*COMMANDS, *inline] if "onerec " in command]


def onerec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onerec", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_make_targets_of_the_readme_exist() -> None:
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", onerec_commands(), ids=" ".join)
def test_onerec_commands_of_the_readme_exist_with_their_options(command: list[str]) -> None:
    words = []
    for word in command:
        if word.startswith("-") or word.isdigit():
            break
        words.append(word)
    done = onerec(*words, "--help")
    assert done.returncode == 0, done.stderr
    for option in (word for word in command if word.startswith("--") and word != "--help"):
        assert option in done.stdout, f"{' '.join(words)} has no option {option}"


@pytest.mark.parametrize("command", RUN_AS_WRITTEN)
def test_commands_that_need_nothing_run(command: str) -> None:
    done = onerec(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_paths_of_the_readme_exist() -> None:
    linked = re.findall(r"\]\((?!http)([^)#*]+)\)", README)
    walk = re.findall(r"`((?:schemas|stream|trainer|onerec|inference)/[\w./]*)`", README)
    missing = [path for path in [*linked, *walk] if not (ROOT / path).exists()]
    assert missing == []


def test_the_figures_are_those_of_the_report() -> None:
    found = MARKED.search(README)
    assert found is not None
    assert table(json.loads(REPORT.read_text())) in found[0], "run `python -m onerec.demo.readme`"
