"""The trainer as a process of its own with its models on a GPU, fed by a broker: what it publishes is made again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from onerec.model.presets import PRESETS
from onerec.settings import KafkaSettings
from schemas.records import JournalKind
from tests.trainer import toy
from tests.trainer.test_reproduce import announced
from tests.trainer.world import World
from trainer.reproduce import reproduce

pytestmark = pytest.mark.broker
WITHIN_S = 120.0
IN_BFLOAT16 = """
import dataclasses
from onerec.model.presets import PRESETS
PRESETS["tiny"] = dataclasses.replace(PRESETS["tiny"], bf16=True, bf16_seed=True)
"""
SESSIONS = 8
"""Of each batch that is published; then a version is waited for."""


@pytest.mark.parametrize("bf16", [True, False])
def test_versions_of_a_trainer_on_a_gpu_are_reproduced_bit_for_bit(
    device: torch.device, kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, bf16: bool
) -> None:
    """In bfloat16 its steps are CUDA graphs."""
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(toy.TINY, bf16=bf16, bf16_seed=bf16))
    world = World(kafka, tmp_path, {"device": "cuda", "cuda_graphs": True})
    world.publish_catalogue()
    world.publish_histories()
    with world.running(before=IN_BFLOAT16 if bf16 else "") as process:
        world.wait(lambda: bool(world.versions()), process, within_s=WITHIN_S)
        for first in (0, SESSIONS, 2 * SESSIONS):
            numbers = range(first, first + SESSIONS)
            world.publish_pairs([toy.pair(first + 1, [1, 2, 3], [4, 5, 6], (-12.0, -12.5))])
            world.publish_sessions([toy.session(n, [n % 50, (3 * n) % 50]) for n in numbers])
            world.wait_for_sessions(first + SESSIONS, process, within_s=WITHIN_S)
    starts = [entry.environment for entry in world.journal() if entry.kind is JournalKind.START]
    assert {start["device"] for start in starts} == {torch.cuda.get_device_name(device)}

    sums = announced(world)
    assert len(sums) >= 3
    from_seed = reproduce(world.settings, None, from_seed=True)
    assert {each.version: each.made_sha256 for each in from_seed.versions} == sums
    assert from_seed.same_environment
    newest = reproduce(world.settings, [max(sums)])
    assert newest.identical
