"""Each model learns a rule that counts cannot hold, reads no future, and ranks the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evaluation.baselines import crm
from evaluation.baselines.attributes import ItemAttributes
from evaluation.baselines.bert4rec import BERT4Rec
from evaluation.baselines.counts import ItemCooccurrence, Popularity
from evaluation.baselines.crm import CRM
from evaluation.baselines.fdsa import FDSA
from evaluation.baselines.sasrec import SASRec
from evaluation.baselines.sequences import POSITIVE, SequenceBatch, Sequences, sequence_batch, shifted
from evaluation.baselines.training import Recommends, SequenceModel, Training, rate_share, train
from evaluation.baselines.transformer import TrunkSettings
from evaluation.ranking import recall
from evaluation.table1.candidates import item_wise
from evaluation.table1.world import World
from tests.evaluation.table1.small_world import ITEMS, small_world

TRUNK = TrunkSettings(length=32, width=32, layers=1, hidden=64, dropout=0.1)
LESSONS = Training(epochs=8, batch=32, learning_rate=1e-2)
NOBODY = np.array([0, 0])


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def attributes(world: World) -> ItemAttributes:
    return ItemAttributes.of(world.rows.items)


MODELS: dict[str, Callable[[World], SequenceModel]] = {
    "sasrec-sampled": lambda _: SASRec(ITEMS, TRUNK, "sampled"),
    "sasrec-softmax": lambda _: SASRec(ITEMS, TRUNK, "softmax"),
    "bert4rec": lambda _: BERT4Rec(ITEMS, TRUNK),
    "fdsa": lambda world: FDSA(attributes(world), TRUNK),
    "crm-transformer": lambda world: CRM(attributes(world), TRUNK, "transformer"),
    "crm-pooled": lambda world: CRM(attributes(world), TRUNK, "pooled"),
}


@torch.inference_mode()
def recall_of(model: Recommends, world: World) -> float:
    """Recall@10 on the cases."""
    batch = sequence_batch(world.rows.past, world.cases.users, TRUNK.length)
    seen = [world.rows.past.items[world.rows.past.user(row)] for row in world.cases.users.tolist()]
    found = item_wise(model.scores(batch), seen, 5, 2, 10).ranking
    pairs = zip(found.tolist(), world.cases.truth, strict=True)
    return float(np.mean([recall(ranking, truth) for ranking, truth in pairs if truth]))


@pytest.mark.parametrize("name", ["sasrec-softmax", "bert4rec", "fdsa", "crm-pooled"])
def test_learns_what_follows_far_better_than_popularity(name: str, world: World) -> None:
    popularity = recall_of(Popularity(world.rows.past, ITEMS), world)
    model = train(lambda: MODELS[name](world), world.rows.past, LESSONS, seed=1)
    if isinstance(model, CRM):
        model.condition = 3 + 3  # 18 to 40 s, as in the log
    assert recall_of(model, world) > popularity + 0.25


def test_cooccurrence_knows_the_group_and_popularity_does_not(world: World) -> None:
    counts = ItemCooccurrence(world.rows.past, ITEMS)
    assert recall_of(counts, world) > recall_of(Popularity(world.rows.past, ITEMS), world) + 0.1


@pytest.mark.parametrize("name", ["sasrec-sampled", "crm-transformer"])
def test_loss_falls(name: str, world: World) -> None:
    batch = sequence_batch(world.rows.past, np.arange(64), TRUNK.length + 1)

    def loss(epochs: int) -> float:
        model = train(
            lambda: MODELS[name](world), world.rows.past, Training(epochs=epochs, batch=32, learning_rate=1e-2), seed=1
        )
        value = model.loss(batch)
        assert value is not None
        return value.item()

    assert loss(4) < 0.9 * loss(0)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bert4rec"])
def test_what_comes_later_changes_no_earlier_state(name: str, world: World) -> None:
    torch.manual_seed(1)
    model = MODELS[name](world).eval()
    batch = sequence_batch(world.rows.past, np.arange(8), 20)
    cut = SequenceBatch(batch.tokens[:, :10], batch.marks[:, :10], batch.watch_ms[:, :10])
    longer = SequenceBatch(
        torch.cat([cut.tokens, torch.zeros_like(batch.tokens[:, 10:])], 1),
        torch.cat([cut.marks, torch.zeros_like(batch.marks[:, 10:])], 1),
        torch.cat([cut.watch_ms, -torch.ones_like(batch.watch_ms[:, 10:])], 1),
    )
    assert torch.allclose(model.scores(cut), model.scores(longer), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_user_without_exposures_gets_scores(name: str, world: World) -> None:
    nobody = Sequences(NOBODY, np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64))
    scores = MODELS[name](world).eval().scores(sequence_batch(nobody, np.array([0]), 20))
    assert scores.shape == (1, ITEMS)
    assert bool(torch.isfinite(scores).all())


def test_shifted_pairs_each_exposure_with_the_next() -> None:
    batch = SequenceBatch(
        torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 2, 1], [1, 2, 0]]), torch.full((2, 3), -1)
    )
    inputs, targets, wanted = shifted(batch)
    assert inputs.tokens.tolist() == [[5, 6], [8, 0]]
    assert targets[inputs.mask].tolist() == [5, 6, 8]
    assert wanted.tolist() == [[True, False], [True, False]]
    assert POSITIVE == 2


def test_conditions_are_what_the_exposure_fulfilled() -> None:
    batch = SequenceBatch(
        torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([[1, 2, 1, 2, 0]]), torch.tensor([[-1, -1, 0, 18_000, -1]])
    )
    assert crm.conditions(batch).tolist() == [[crm.SHORT, crm.LONG, 3, 6, crm.UNKNOWN]]


def test_rate_rises_then_falls() -> None:
    shares = [rate_share(step / 100) for step in range(101)]
    assert max(shares) == pytest.approx(1.0)
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[100] == pytest.approx(0.02)
