"""What the engine returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Generated(NamedTuple):
    """Sessions of each request, best first, as leaves of the catalogue snapshot they were generated over.

    A place that could not be filled, because the catalogue or the constraints leave fewer items or fewer sessions
    than were asked for, holds leaf -1: at the end of a session with log-probability 0, in a missing session with
    log-probability -inf.
    """

    sessions: Tensor  # int64 [B, W, m]
    log_probs: Tensor  # float32 [B, W]: of the whole session
    item_log_probs: Tensor  # float32 [B, W, m]: of each item given all before it; they add up to log_probs
    first_leaves: Tensor  # int64 [B, W0]: the most probable next items, the beam after the first slot
    first_log_probs: Tensor  # float32 [B, W0]
