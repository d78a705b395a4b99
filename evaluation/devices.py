"""Where models train, made ready for it."""

from __future__ import annotations

import torch

from onerec.errors import SettingsError


def use(device: torch.device, threads: int = 1) -> None:
    """Before the first work of a process. Raises SettingsError where there is no such device.

    On a GPU products of float32 matrices are in TF32: for all that a table compares alike.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise SettingsError("There is no CUDA device.", "Leave out --device.")
        torch.set_float32_matmul_precision("high")
