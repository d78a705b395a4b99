"""The compiled kernels, built where they can be and looked at anew."""

from __future__ import annotations

import pytest

from inference.engine.native import binding, check
from onerec.errors import DependencyMissingError


def build_kernels() -> None:
    """Build and forget what was loaded and checked; skips the test where this machine has no compiler."""
    try:
        binding.build()
    except DependencyMissingError as error:
        pytest.skip(str(error))
    forget_libraries()


def forget_libraries() -> None:
    """What was loaded and checked: the next engine looks anew."""
    binding.load.cache_clear()
    check._checked.cache_clear()
