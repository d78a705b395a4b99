"""What a crash leaves: the bus and the files as they are before a step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.recovery import disk
from tests.recovery.bus import Bus

UNIQUE = re.compile(r"[0-9a-f]{32}")


@dataclass
class Picture:
    """What a crash before a step leaves."""

    step: str
    bus: Bus
    folder: Path

    def likeness(self) -> str:
        """Equal for what two crashes leave alike: the same entries in the same states, the same files."""
        logs = {part: [entry.state for entry in log] for part, log in self.bus.logs.items()}
        files = [path for path in sorted(self.folder.rglob("*")) if _tells(path)]
        sizes = [path.is_file() and path.stat().st_size for path in files]
        names = [
            (UNIQUE.sub("", str(path.relative_to(self.folder))), size) for path, size in zip(files, sizes, strict=True)
        ]
        return repr((logs, sorted(self.bus.offsets.items()), sorted(self.bus.open), names))


def _tells(path: Path) -> bool:
    """Whether the file is state: of RocksDB's only its tables are."""
    return path.suffix == ".sst" or not (path.parent / "CURRENT").exists()


def pictures(bus: Bus, folder: Path, live: Callable[[], None], *, only: int | None = None) -> list[Picture]:
    """Live, and tell what a crash before each step would have left; or before step `only`."""
    taken: list[Picture] = []
    seen = [0]

    def take(step: str) -> None:
        if told is not None:
            told(step)
        if only is None or seen[0] == only:
            to = folder.with_name(f"{folder.name}-{seen[0]}")
            disk.picture(folder, to, step)
            taken.append(Picture(step, bus.survivor(), to))
        seen[0] += 1

    told, bus.before_step = bus.before_step, take
    live()
    bus.before_step = told
    return taken
