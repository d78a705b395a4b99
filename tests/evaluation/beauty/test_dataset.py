"""What may be known when: splits, samples, and what is said where the data are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.beauty.counts import Counts, Weights
from evaluation.beauty.dataset import NONE, SEQUENCES, TEXTS, Beauty, load
from evaluation.beauty.samples import prefixes
from onerec.errors import SettingsError

USERS = [[3, 1, 4, 5, 9], [2, 6, 5], [5, 3, 8, 7, 1, 2]]


@pytest.fixture
def beauty(tmp_path: Path) -> Beauty:
    lines = [" ".join(map(str, [user + 1, *items])) for user, items in enumerate(USERS)]
    (tmp_path / SEQUENCES).write_text("\n".join(lines) + "\n")
    numbers = np.arange(9, 0, -1)  # in another order than the sequences'
    np.savez(tmp_path / TEXTS, item=numbers, emb=np.repeat(numbers[:, None], 4, axis=1).astype(np.float16))
    return load(tmp_path)


def numbers_of(beauty: Beauty, items: np.ndarray) -> list[int]:
    """The numbers that items have in the file: their texts are made of these."""
    return [int(beauty.texts[item, 0]) for item in items if item != NONE]


def test_the_last_item_is_the_test_item_and_is_not_in_its_history(beauty: Beauty) -> None:
    for user, items in enumerate(USERS):
        assert numbers_of(beauty, beauty.truth("test")[user : user + 1]) == items[-1:]
        assert numbers_of(beauty, beauty.histories("test", 10)[user]) == items[:-1]
        assert numbers_of(beauty, beauty.truth("validation")[user : user + 1]) == items[-2:-1]
        assert numbers_of(beauty, beauty.histories("validation", 10)[user]) == items[:-2]
    assert numbers_of(beauty, beauty.histories("test", 2)[2]) == [7, 1]  # the newest, oldest first


def test_samples_are_of_training_sequences_alone_in_both_directions(beauty: Beauty) -> None:
    samples = prefixes(beauty, 3)
    found = [
        (numbers_of(beauty, history), *numbers_of(beauty, np.array([target])))
        for history, target in zip(samples.histories.numpy(), samples.targets.numpy(), strict=True)
    ]
    ahead = [([3], 1), ([3, 1], 4), ([5], 3), ([5, 3], 8), ([5, 3, 8], 7)]
    assert found[: samples.forward] == ahead
    assert sorted(found[samples.forward :]) == sorted([([4], 1), ([4, 1], 3), ([7], 8), ([7, 8], 3), ([7, 8, 3], 5)])


def test_an_epoch_has_every_sample_once_and_a_share_of_those_backwards(beauty: Beauty) -> None:
    samples = prefixes(beauty, 3)
    rows = samples.epoch(0.6, 1, torch.Generator().manual_seed(1)).flatten().tolist()
    assert sorted(row for row in rows if row < samples.forward) == list(range(samples.forward))
    assert len(rows) == samples.count(0.6) == samples.forward + 3


def test_counts_know_nothing_of_validation_and_test_items(beauty: Beauty) -> None:
    counts = Counts(beauty, torch.device("cpu"))
    histories = torch.from_numpy(beauty.histories("validation", 4))
    assert int(counts.reviews.sum()) == sum(len(items) - 2 for items in USERS)
    found = counts.cooccurrence(histories, Weights())
    by_number = {number: row for row, number in enumerate(beauty.texts[:, 0].astype(int).tolist())}
    assert float(found[1].sum()) == 0.0  # item 2 is in no training sequence with another one
    assert float(found[0, by_number[4]]) == 2.0  # with 3, and with 1
    prior = counts.log_prior(histories, Weights())
    torch.testing.assert_close(prior.exp().sum(1), torch.ones(3))


def test_users_to_choose_by_are_of_the_whole_file() -> None:
    of_many = Beauty(np.arange(0, 3 * 100 + 1, 3), np.tile(np.arange(3), 100), np.zeros((3, 2), np.float32))
    users = of_many.spread_users(70)  # no divisor of 100
    assert len(np.unique(users)) == len(users) == 70
    assert users[-1] >= 98
    assert of_many.spread_users(1000).tolist() == list(range(100))


def test_a_slice_has_the_items_of_its_users_alone(beauty: Beauty) -> None:
    first = beauty.first(2)
    assert (len(first), first.item_count) == (2, 7)
    assert numbers_of(first, first.items) == USERS[0] + USERS[1]


def test_an_item_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / SEQUENCES).write_text("1 1 2 3\n")
    np.savez(tmp_path / TEXTS, item=np.array([1, 3]), emb=np.zeros((2, 4), np.float16))
    with pytest.raises(SettingsError, match="lacks items"):
        load(tmp_path)


def test_without_the_data_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation", "beauty", "--quick", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    for wanted in (SEQUENCES, "AMAZON_BEAUTY", "S3-Rec"):
        assert wanted in done.stderr
