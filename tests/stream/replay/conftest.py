"""The real log, read once."""

from __future__ import annotations

import pytest

from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures, Histories


@pytest.fixture(scope="session")
def exposures() -> Exposures:
    return KuaiRand().exposures()


@pytest.fixture(scope="session")
def histories() -> Histories:
    return KuaiRand().histories(50)
