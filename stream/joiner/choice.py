"""Which join a partition gets."""

from __future__ import annotations

from collections.abc import Callable

from onerec.settings import JoinerSettings
from schemas.records import History
from stream.joiner.joining import Joining
from stream.joiner.native.check import checked
from stream.joiner.native.join import NativeJoin, fits
from stream.joiner.plain import PlainJoin
from stream.joiner.wiring import Wiring


def join_of(
    settings: JoinerSettings, wiring: Wiring, load_history: Callable[[int], History | None], watermark_ms: int
) -> Joining:
    """The compiled join where the settings want it, it is there, has passed its check and can keep these rules."""
    functions = checked() if settings.compiled and fits(settings) else None
    if functions is None:
        return PlainJoin(settings, wiring, load_history, watermark_ms)
    return NativeJoin(functions, settings, wiring, load_history, watermark_ms)
