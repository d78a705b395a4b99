"""The `onerec` command line: `onerec --help` reads like a map of the system."""

from __future__ import annotations

from onerec.cli.app import main

__all__ = ["main"]
