"""Pictures of the studies, by matplotlib, which is an extra: without it everything but the pictures can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onerec.errors import DependencyMissingError

INCHES = (4.2, 3.2)
"""Of one part of a picture."""


def picture(rows: int, columns: int, inches: tuple[float, float] = INCHES) -> tuple[Any, Any]:
    """An empty figure, and its axes [rows, columns]. Raises DependencyMissingError without matplotlib."""
    try:
        import matplotlib  # noqa: PLC0415 - an extra
    except ImportError as error:
        remedy = "pip install 'onerec-stream[evaluation]'"
        raise DependencyMissingError("Figures are drawn by matplotlib, which is not there.", remedy) from error
    matplotlib.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415

    width, height = inches
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Any, path: Path) -> None:
    """As PNG, the same bytes for the same figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
