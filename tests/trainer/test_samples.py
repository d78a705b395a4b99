"""How histories become the seed's samples."""

from __future__ import annotations

import numpy as np
import torch

from onerec.features import HistoryArrays, history_batch
from onerec.settings import SeedSettings
from schemas.labels import Label
from tests.trainer import toy
from trainer.samples import Source, cut, sample_batch


def history(items: list[int], labels: list[int] | None = None) -> HistoryArrays:
    return HistoryArrays(
        np.array(items, np.int64), np.zeros(len(items), np.int64), np.array(labels or [1] * len(items), np.uint8)
    )


def test_sessions_are_cut_from_the_newest_event_backwards() -> None:
    samples = cut(
        [history([1, 2]), history(list(range(1, 12))), history(list(range(20, 26)))], toy.catalogue(), toy.TINY
    )
    events = [samples.leaves[begin:end].tolist() for begin, end in zip(samples.begin, samples.end, strict=True)]
    assert events == [[9, 10, 11], [6, 7, 8], [23, 24, 25]]
    assert samples.age.tolist() == [0, 1, 0]
    assert samples.lengths.tolist() == [8, 5, 3]


def test_sessions_of_a_shorter_stride_overlap() -> None:
    samples = cut([history(list(range(1, 9)))], toy.catalogue(), toy.TINY, stride=1)
    events = [samples.leaves[begin:end].tolist() for begin, end in zip(samples.begin, samples.end, strict=True)]
    assert events == [[6, 7, 8], [5, 6, 7], [4, 5, 6]]
    assert samples.age.tolist() == [0, 0, 0]
    assert samples.lengths.tolist() == [5, 4, 3]
    older = cut([history(list(range(1, 12)))], toy.catalogue(), toy.TINY, stride=2)
    assert older.age.tolist() == [0, 0, 1]


def test_unknown_items_are_left_out() -> None:
    samples = cut([history([1, 2, toy.UNKNOWN_ITEM, 3, 4, 5, 6])], toy.catalogue(), toy.TINY)
    assert samples.leaves.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(samples) == 1


def test_histories_are_those_that_the_stream_would_give() -> None:
    long = history(list(range(1, 20)), [k % 2 for k in range(19)])
    samples = cut([long], toy.catalogue(), toy.TINY)
    batch = sample_batch(samples, np.array([0, 2]), toy.catalogue(), toy.TINY)
    heads = [HistoryArrays(long.items[:end], long.times_ms[:end], long.labels[:end]) for end in (16, 10)]
    expected = history_batch(heads, toy.catalogue(), toy.TINY)
    assert torch.equal(batch.history.codes, expected.codes)
    assert torch.equal(batch.history.labels, expected.labels)
    assert torch.equal(batch.history.mask, expected.mask)
    assert batch.leaves.tolist() == [[17, 18, 19], [11, 12, 13]]
    assert batch.weight.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_newer_sessions_come_more_often_and_most_at_the_end() -> None:
    users = [history(list(range(1, 16))) for _ in range(40)]
    samples = cut(users, toy.catalogue(), toy.TINY)
    settings = SeedSettings(batch=8, half_life=4.0, final_half_life=0.5)
    mean_age = []
    for share in (0.0, 1.0):
        source = Source(samples, settings, seed=3)
        mean_age.append(np.mean([samples.age[source.next_token(share)].mean() for _ in range(200)]))
    assert 1.0 < mean_age[0] < 1.5 + 0.1
    assert mean_age[1] < 0.6


def test_every_sample_comes_once_an_epoch() -> None:
    users = [history(list(range(1, 7)), [int(Label.NONE)] * 6) for _ in range(30)]
    users += [history(list(range(1, 7))) for _ in range(30)]
    samples = cut(users, toy.catalogue(), toy.TINY)
    source = Source(samples, SeedSettings(batch=10), seed=3)
    once = np.concatenate([source.next_token(0.5) for _ in range(3)])
    assert sorted(once) == list(range(30, 60)), "only sessions with a positive"
    assert sorted(np.concatenate([source.reward() for _ in range(6)])) == list(range(60))
