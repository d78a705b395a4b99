"""How many beams a worker keeps after each code of a session."""

from __future__ import annotations

import torch
from torch import Tensor

from onerec.errors import SettingsError
from onerec.model.presets import ModelConfig
from onerec.settings.inference import DecodingSettings


def decoding_widths(decoding: DecodingSettings, config: ModelConfig) -> Tensor:
    """The settings' widths, int64 [1, m, L]. Raises SettingsError where they are not one for each code of an item."""
    later = decoding.later_beam_width or decoding.beam_width
    slots = torch.tensor([decoding.beam_width, *[later] * (config.session_items - 1)])
    levels = torch.tensor(decoding.level_widths or [decoding.beam_width] * config.levels)
    if len(levels) != config.levels:
        raise SettingsError(
            f"inference.decoding.level_widths has {len(levels)} numbers, an item has {config.levels} codes.",
            "Give one for each code, or none.",
        )
    return torch.minimum(slots.unsqueeze(1), levels).unsqueeze(0)
