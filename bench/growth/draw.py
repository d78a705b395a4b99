"""The curves as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onerec.errors import DependencyMissingError

COLUMNS = 3


def draw(curves: Sequence[dict[str, Any]], file: Path) -> None:
    """A panel for each curve, both axes logarithmic. Raises DependencyMissingError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only the picture needs it
    except ImportError as error:
        raise DependencyMissingError(
            "There is no matplotlib for the picture.", "pip install 'onerec-stream[evaluation]'; the JSON is written."
        ) from error
    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for panel in panels:
        panel.set_visible(False)
    for panel, curve in zip(figure.axes, curves, strict=False):
        sizes, costs = curve["sizes"], curve["cpu_ms_a_batch"]
        panel.set_visible(True)
        panel.loglog(sizes, costs, "o-", color="#1f4e79", base=2)
        ends = [costs[-1] * (size / sizes[-1]) ** curve["bound"] for size in sizes]
        panel.loglog(sizes, ends, "--", color="#999999", base=2, label=f"exponent {curve['bound']:g}")
        panel.set_title(f"{curve['name']}: exponent {curve['exponent_last']:.2f} at the end")
        panel.set_xlabel(curve["unit"])
        panel.set_ylabel("CPU ms a batch")
        panel.set_ylim(min(costs) / 2, max(costs) * 2)
        panel.legend(loc="upper left", frameon=False)
    figure.savefig(file, dpi=110)
