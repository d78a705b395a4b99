"""A training that is killed goes on after the last epoch that it kept, and ends as if nothing had happened."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from evaluation.beauty import protocol
from evaluation.beauty.dataset import load
from evaluation.beauty.members import plan
from evaluation.beauty.model import ItemOneRec
from evaluation.beauty.progress import Kept
from evaluation.beauty.samples import prefixes
from evaluation.beauty.training import Recipe, train
from onerec.model.trie import Trie
from tests.evaluation.beauty.planted import planted

RECIPE = Recipe(epochs=6, batch=128, looks=3, learning_rate=5e-3)
FORM = dataclasses.replace(protocol.QUICK, codes=16, width=32, layers=1, dropout=0.1, generative=RECIPE)


def learn(data: Path, weights: Path, killed_at_look: int | None = None) -> None:
    """Train the model with item vectors and a taught half, the one with most to go on from; count its looks."""
    torch.set_num_threads(1)
    beauty, own, looks = load(data), plan("taught", FORM), list[float]()
    numbers = torch.arange(beauty.item_count)
    trie = Trie.build(torch.stack([numbers // 256, numbers // 16 % 16, numbers % 16], dim=1), FORM.codes)
    content = torch.randn(beauty.item_count, 8, generator=torch.Generator().manual_seed(2))

    def validate(model: ItemOneRec) -> float:
        looks.append(-float(model.bos.abs().sum()))  # falls, so the first look is the best
        if len(looks) == killed_at_look:
            os.kill(os.getpid(), signal.SIGKILL)
        return looks[-1]

    trained = train(
        lambda: ItemOneRec(own.config, content, own.forget),
        prefixes(beauty, 8),
        trie,
        own.recipe,
        seed=1,
        device=torch.device("cpu"),
        validate=validate,
        kept=Kept(weights.with_suffix(".epoch"), every_s=0.0),
    )
    looked = {f"look-{epoch}": torch.tensor(value) for epoch, _, value in trained.history["looks"]}
    assert trained.history["steps"] % RECIPE.epochs == 0
    save_file(trained.model.state_dict() | looked | {"looks_now": torch.tensor(len(looks))}, weights)


def in_a_process(data: Path, weights: Path, killed_at_look: int | None = None) -> int | None:
    process = multiprocessing.get_context("spawn").Process(target=learn, args=(data, weights, killed_at_look))
    process.start()
    process.join()
    return process.exitcode


def test_a_killed_training_ends_in_the_weights_that_it_would_have_had(tmp_path: Path) -> None:
    data = planted(tmp_path / "data", users=200)
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    assert in_a_process(data, whole) == 0
    assert in_a_process(data, killed, killed_at_look=2) == -signal.SIGKILL
    assert not killed.exists()
    assert in_a_process(data, killed) == 0
    expected, found = load_file(whole), load_file(killed)
    assert int(expected.pop("looks_now")) == 3
    assert int(found.pop("looks_now")) == 2, "the look before the kill is kept, the one that was killed is made again"
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)
