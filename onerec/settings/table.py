"""What a table of settings is."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Device = Annotated[str, Field(pattern=r"^(cpu|auto|cuda(:\d+)?)$")]
"""As `onerec.device.device_of` reads it."""


class Table(BaseModel):
    """A table of settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
