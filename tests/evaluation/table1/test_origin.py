"""Results of another code or of a changed tree are told apart."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from evaluation.table1.origin import ROOT, commit, source_digest
from evaluation.table1.protocol import QUICK
from evaluation.table1.run import folder_of


def test_every_source_of_the_rows_is_there_and_names_the_folder() -> None:
    assert folder_of(QUICK, Path("runs")).name == f"quick-{QUICK.digest()}-{source_digest()}"


def test_a_constant_changes_the_digest_and_a_comment_does_not(tmp_path: Path) -> None:
    source = tmp_path / "recipe.py"

    def digest(text: str) -> str:
        source.write_text(text)
        return source_digest(tmp_path, ["*.py"])

    first = digest('"""One."""\nRATE = 1e-3\n\n\ndef rate():\n    """The rate."""\n    return RATE\n')
    assert digest("# other\nRATE = 0.001\n\n\ndef rate():\n    return RATE  # told\n") == first
    assert digest("RATE = 2e-3\n\n\ndef rate():\n    return RATE\n") != first
    source.unlink()
    with pytest.raises(FileNotFoundError):
        source_digest(tmp_path, ["*.py"])


def test_a_changed_tree_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_COMMIT", raising=False)

    def git(*arguments: str) -> None:
        own = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *own, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert commit(tmp_path) == "unknown"
    git("init")
    (tmp_path / "one.py").write_text("ONE = 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    clean = commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "paper.md").write_text("what a run writes\n")
    assert commit(tmp_path) == clean
    (tmp_path / "one.py").write_text("ONE = 2\n")
    assert commit(tmp_path) == f"{clean}+changes"
    assert (ROOT / "evaluation" / "table1" / "origin.py").is_file()
    monkeypatch.setenv("SOURCE_COMMIT", "of the tree that was copied")
    assert commit(tmp_path) == "of the tree that was copied"
