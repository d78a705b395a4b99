"""`onerec replay`: hands over to `python -m stream replay`, which has the options."""

from __future__ import annotations

import os
import sys

import typer


def replay(context: typer.Context) -> None:
    """Publish a recorded log as a live stream; `onerec replay --help` lists the options."""
    os.execv(sys.executable, [sys.executable, "-m", "stream", "replay", *context.args])  # noqa: S606 - our own command
