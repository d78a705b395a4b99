"""`onerec audit`: hands over to `python -m audit`, which has the options."""

from __future__ import annotations

import os
import sys

import typer


def audit(context: typer.Context) -> None:
    """Read the topics afresh: what is lost, double or wrong; `onerec audit --help` lists the options."""
    os.execv(sys.executable, [sys.executable, "-m", "audit", *context.args])  # noqa: S606 - our own command
