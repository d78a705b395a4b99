"""Where torch computes: the CPU, or a CUDA device that the settings name."""

from __future__ import annotations

import torch

from onerec.errors import SettingsError

CPU = torch.device("cpu")


def device_of(wanted: str, key: str) -> torch.device:
    """The device that the setting `key` names; auto is the first CUDA device where there is one, else the CPU.

    A CUDA device always carries its number, so that it equals that of a tensor which lies there. Raises SettingsError
    for one that torch does not have here.
    """
    count = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return CPU
    number = int(wanted.partition(":")[2] or 0)
    if number >= count:
        has = f"has {count} CUDA devices" if count else "has no CUDA device"
        built = "" if torch.version.cuda else f"; torch {torch.__version__} is built without CUDA"
        raise SettingsError(
            f"{key} is {wanted}, but this machine {has}{built}.",
            f"Set {key} to cpu, or to auto, which takes what is there.",
        )
    return torch.device("cuda", number)
