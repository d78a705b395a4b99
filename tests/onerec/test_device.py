"""Which device a setting names, and what is said where it is not there."""

from __future__ import annotations

import pytest
import torch

from onerec.device import device_of
from onerec.errors import ExitCode, SettingsError
from onerec.settings import load_settings

KEY = "trainer.device"


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize(
    ("devices", "wanted", "found"),
    [
        (0, "cpu", torch.device("cpu")),
        (0, "auto", torch.device("cpu")),
        (2, "cpu", torch.device("cpu")),
        (2, "auto", torch.device("cuda", 0)),
        (2, "cuda", torch.device("cuda", 0)),
        (2, "cuda:1", torch.device("cuda", 1)),
    ],
    indirect=["devices"],
)
@pytest.mark.usefixtures("devices")
def test_what_is_named_is_taken(wanted: str, found: torch.device) -> None:
    assert device_of(wanted, KEY) == found


@pytest.mark.parametrize(
    ("devices", "wanted", "told"),
    [(0, "cuda", "has no CUDA device"), (2, "cuda:2", "has 2 CUDA devices")],
    indirect=["devices"],
)
@pytest.mark.usefixtures("devices")
def test_what_is_not_there_is_refused(wanted: str, told: str) -> None:
    with pytest.raises(SettingsError, match=rf"{KEY} is {wanted}.*{told}.*Set {KEY} to cpu, or to auto") as raised:
        device_of(wanted, KEY)
    assert raised.value.exit_code == ExitCode.BAD_ARGUMENTS


def test_other_words_are_refused_when_settings_are_read() -> None:
    with pytest.raises(SettingsError, match=r"inference\.decoding\.device"):
        load_settings(inference={"decoding": {"device": "gpu"}})
