"""`python -m onerec`: the same as the `onerec` command, for images and checkouts without an install."""

from __future__ import annotations

from onerec.cli.app import main

if __name__ == "__main__":
    main()
