"""Runs a target with atheris (extra `fuzz`) for a while; a crash ends with its traceback and the input that made it.

A target is a module of this folder with SEEDS, a small corpus made by code, and `target(data)`, which returns for
everything that its decoder accepts or refuses, and raises for anything else.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
TARGETS = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(("_", "test_")))
INSTRUMENTED = ["schemas", "onerec", "stream", "trainer"]
MOST_MB = 2_048
SLOW_S = 10


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=-1, help="stop after so many; -1 for no limit")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        module = importlib.import_module(f"tests.fuzz.{arguments.target}")
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(module.SEEDS):
            (Path(corpus) / f"{number:03d}").write_bytes(seed)
        options = {
            "max_total_time": arguments.seconds,
            "runs": arguments.runs,
            "seed": arguments.seed,
            "timeout": SLOW_S,
            "rss_limit_mb": MOST_MB,
            "max_len": 65_536,
            "artifact_prefix": f"{tempfile.gettempdir()}/fuzz-{arguments.target}-",
            "verbosity": 0,
            "print_final_stats": 1,
        }
        libfuzzer = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup([sys.argv[0], corpus, *libfuzzer], module.target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
