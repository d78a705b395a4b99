"""How much goes into each figure: the quick form takes minutes, the short one an hour, the full one hours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.table1 import protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The models that figures start from are those of a form of Table 1, and so are users, cases and candidates."""

    table: protocol.Form
    ratios: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)
    widths: tuple[int, ...]  # of Figure 6
    scale_samples: int  # that each of its models is trained with, the rest as the table's OneRec
    held_out: int  # sessions that its models are measured on
    seed: int = 1

    @property
    def name(self) -> str:
        """As the form of Table 1."""
        return self.table.name

    def digest(self) -> str:
        """Changes with every figure of the form."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


FULL = Form(table=protocol.FULL, widths=(16, 32, 64, 128, 256), scale_samples=200_000, held_out=20_000)
SHORT = Form(table=protocol.SHORT, widths=(16, 32, 64, 128, 192), scale_samples=12_000, held_out=2_000)
QUICK = Form(
    table=protocol.QUICK,
    ratios=(0.0, 0.01, 0.03, 0.05),
    widths=(16, 32, 64, 128),
    scale_samples=4_000,
    held_out=1_000,
)


def described(form: Form) -> dict[str, Any]:
    """The form as the results state it."""
    return asdict(form) | {"table": form.table.name}
