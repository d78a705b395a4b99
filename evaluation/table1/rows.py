"""The rows of Table 1, in families that share training: what a family is trained by, and what its rows recommend."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from evaluation.baselines.attributes import ItemAttributes
from evaluation.baselines.bert4rec import BERT4Rec
from evaluation.baselines.cascade import Cascade, Sizes
from evaluation.baselines.counts import ItemCooccurrence, Popularity
from evaluation.baselines.crm import CRM
from evaluation.baselines.fdsa import FDSA
from evaluation.baselines.multi_objective import PreRanker, Ranker
from evaluation.baselines.sasrec import SASRec
from evaluation.baselines.sequences import Longs, SequenceBatch, sequence_batch
from evaluation.baselines.training import CPU, Recommends, SequenceModel, Training, train
from evaluation.baselines.transformer import TrunkSettings
from evaluation.table1.candidates import Recommended, item_wise, ranked
from evaluation.table1.generative import (
    ranked_items,
    recommend_items,
    recommend_sessions,
    seen_of,
    smaller,
    tiger,
    train_generative,
)
from evaluation.table1.judge import device_of, predicted
from evaluation.table1.kept import Context, kept, onerec_of, reward_of
from evaluation.table1.preference import RECIPES, Aligner
from evaluation.table1.protocol import HISTORY_ITEMS, PRE_RANKED, RETRIEVED, SESSION_ITEMS, TOP
from evaluation.table1.rounds import Round
from evaluation.table1.rqvae_ids import rqvae_config, with_rqvae_ids
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, lazy
from onerec.model.reward import RewardModel
from stream.replay.log import Items

TRUNK = TrunkSettings(length=HISTORY_ITEMS)
NORMED_TRUNK = TrunkSettings(length=HISTORY_ITEMS, input_norm=True)
"""Of SASRec, whose published form has a tenth more Recall@10 by it, and BERT4Rec; FDSA has as much without the norm."""
CRM_WISHES = {"9s": 5, "18s": 6, "40s": 7, "90s": 8}
"""Conditions that CRM is asked for, by the least watch time; the numbers are those of crm.conditions."""
CASCADES = {"cascade-crm": "crm", "cascade-sasrec": "sasrec-softmax"}
"""Rows, and what retrieves."""
SIZES = Sizes(RETRIEVED, PRE_RANKED)
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one seed, trained."""

    name: str
    recommended: Recommended
    at_visits: Longs  # [V, k] the best items for each visit
    parameters: int
    rounds: tuple[Round, ...] = ()  # of IPA and the control: M_0 and the model after each round


@dataclass(frozen=True, slots=True)
class Family:
    """Rows that are trained together. `make` yields those of `wanted`."""

    rows: tuple[str, ...]
    make: Callable[[Context, frozenset[str]], Iterator[Row]]


def families() -> tuple[Family, ...]:
    """All rows in the order of the table."""
    return (
        Family(("popularity",), lambda at, _: _counts(at, "popularity", Popularity)),
        Family(("cooccurrence",), lambda at, _: _counts(at, "cooccurrence", ItemCooccurrence)),
        _sequence("sasrec"),
        _sequence("sasrec-softmax"),
        _sequence("bert4rec"),
        _sequence("fdsa"),
        _crm("crm"),
        _crm("crm-transformer"),
        Family(("cascade-crm", "cascade-sasrec"), _cascades),
        Family(("tiger-s",), lambda at, _: _tiger(at, "tiger-s", tiger(smaller(at.config)))),
        Family(("tiger-l",), lambda at, _: _tiger(at, "tiger-l", tiger(at.config))),
        Family(("tiger-rqvae-s",), _tiger_rqvae),
        Family(("onerec-s",), lambda at, _: _onerec(at, "onerec-s", smaller(at.config))),
        Family(("onerec-l-lazy",), lambda at, _: _onerec(at, "onerec-l-lazy", lazy(at.config))),
        Family(("onerec-l", *(f"onerec-l-{name}" for name in RECIPES)), _onerec_large),
    )


SEQUENCE_MODELS: dict[str, Callable[[Items], SequenceModel]] = {
    "sasrec": lambda items: SASRec(len(items.item_ids), NORMED_TRUNK, "sampled"),
    "sasrec-softmax": lambda items: SASRec(len(items.item_ids), NORMED_TRUNK, "softmax"),
    "bert4rec": lambda items: BERT4Rec(len(items.item_ids), NORMED_TRUNK),
    "fdsa": lambda items: FDSA(ItemAttributes.of(items), TRUNK),
    "crm": lambda items: CRM(ItemAttributes.of(items), TRUNK, "pooled"),
    "crm-transformer": lambda items: CRM(ItemAttributes.of(items), TRUNK, "transformer"),
    "pre-ranker": lambda items: PreRanker(ItemAttributes.of(items), TRUNK),
    "ranker": lambda items: Ranker(ItemAttributes.of(items), TRUNK),
}
"""What is trained on exposures in their order, by name: rows, and the stages of the cascades."""


def sequence_model(name: str, at: Context, epochs: int) -> SequenceModel:
    """One of these, trained with the context's seed, or kept: cascades retrieve by models that are rows themselves."""
    items = at.world.rows.items

    def make() -> SequenceModel:
        return SEQUENCE_MODELS[name](items)

    return kept(
        at.folder / f"{name}.{epochs}-epochs.{at.seed}.safetensors",
        lambda: make().to(at.device),
        lambda: train(make, at.world.rows.past, Training(epochs=epochs), at.seed, at.device),
    )


def _counts(at: Context, name: str, make: Callable[..., Recommends]) -> Iterator[Row]:
    yield _row(name, partial(recommend, make(at.world.rows.past, len(at.world.rows.items.item_ids))), at, 0)


def _row(name: str, recommend: Callable[[Context], Recommended], at: Context, parameters: int) -> Row:
    """Of an item-wise model: what it recommends for the cases, and for the visits."""
    return Row(name, recommend(at), recommend(visiting(at)).ranking, parameters)


def visiting(at: Context) -> Context:
    """The same context with the visits as cases, of which rankings alone are wanted."""
    return replace(at, world=at.world.at_visits(), form=replace(at.form, candidates=1))


def _sequence(name: str) -> Family:
    def rows(at: Context, wanted: frozenset[str]) -> Iterator[Row]:
        del wanted
        model = sequence_model(name, at, at.form.epochs_of(name))
        yield _row(name, partial(recommend, model), at, parameters_of(model))

    return Family((name,), rows)


def _crm(name: str) -> Family:
    """One training, a row for each condition."""

    def rows(at: Context, wanted: frozenset[str]) -> Iterator[Row]:
        model = sequence_model(name, at, at.form.epochs_of(name))
        assert isinstance(model, CRM)
        for wish, condition in CRM_WISHES.items():
            if f"{name}-{wish}" in wanted:
                model.condition = condition
                yield _row(f"{name}-{wish}", partial(recommend, model), at, parameters_of(model))

    return Family(tuple(f"{name}-{wish}" for wish in CRM_WISHES), rows)


def _cascades(at: Context, wanted: frozenset[str]) -> Iterator[Row]:
    """Pre-ranker and ranker are trained once; each row has its own retrieval before them."""
    form = at.form
    pre_ranker, ranker = (sequence_model(name, at, form.epochs_of(name)) for name in ("pre-ranker", "ranker"))
    for name, first in CASCADES.items():
        if name in wanted:
            retrieval = sequence_model(first, at, form.epochs_of(first))
            size = sum(parameters_of(model) for model in (retrieval, pre_ranker, ranker))
            yield _row(name, partial(through, cascade_of((retrieval, pre_ranker, ranker), SIZES)), at, size)


def cascade_of(models: Sequence[SequenceModel], sizes: Sizes) -> Cascade:
    """Of retrieval, pre-ranker and ranker."""
    retrieval, pre_ranker, ranker = models
    assert isinstance(pre_ranker, PreRanker)
    assert isinstance(ranker, Ranker)
    if isinstance(retrieval, CRM):
        retrieval.condition = CRM_WISHES["18s"]
    return Cascade(retrieval, pre_ranker, ranker, sizes)


def through(cascade: Cascade, at: Context) -> Recommended:
    """What a cascade recommends for all cases."""

    def ranking(batch: SequenceBatch, seen: list[Longs]) -> Recommended:
        stages = cascade.recommend(batch.to(at.device), seen)
        return ranked(stages.values.numpy(), stages.ranked.numpy(), SESSION_ITEMS, at.form.candidates, TOP)

    return _by_chunks(ranking, at)


@torch.inference_mode()
def recommend(model: Recommends, at: Context) -> Recommended:
    """What a model that scores items recommends for all cases."""
    device = device_of(model) if isinstance(model, nn.Module) else CPU

    def ranking(batch: SequenceBatch, seen: list[Longs]) -> Recommended:
        return item_wise(model.scores(batch.to(device)).cpu(), seen, SESSION_ITEMS, at.form.candidates, TOP)

    return _by_chunks(ranking, at)


def _by_chunks(recommend: Callable[[SequenceBatch, list[Longs]], Recommended], at: Context) -> Recommended:
    """For all cases what `recommend` gives for a batch of them and for what each has seen."""
    world, parts = at.world, []
    for first in range(0, len(world.cases), CHUNK):
        users = world.cases.users[first : first + CHUNK]
        seen = [seen_of(world, row) for row in users.tolist()]
        parts.append(recommend(sequence_batch(world.rows.past, users, TRUNK.length), seen))
    return Recommended(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _tiger(at: Context, name: str, config: ModelConfig) -> Iterator[Row]:
    model = train_generative(at.world.rows, config, at.form.tiger, at.seed, at.device)
    yield _generative(name, model, recommend_items(model, at.world, at.form), at)


def _generative(name: str, model: OneRec, found: Recommended, at: Context, rounds: tuple[Round, ...] = ()) -> Row:
    """With what the model was found to recommend for the cases."""
    return Row(name, found, ranked_items(model, at.world.at_visits()), parameters_of(model), rounds)


def _tiger_rqvae(at: Context, _: frozenset[str]) -> Iterator[Row]:
    """The smaller TIGER with ids as it has them: by RQ-VAE, with a collision code."""
    return _tiger(with_rqvae_ids(at), "tiger-rqvae-s", rqvae_config(tiger(smaller(at.config))))


def _onerec(at: Context, name: str, config: ModelConfig) -> Iterator[Row]:
    model = train_generative(at.world.rows, config, at.form.onerec, at.seed, at.device)
    yield _generative(name, model, recommend_sessions(model, at.world, at.form), at)


def _onerec_large(at: Context, wanted: frozenset[str]) -> Iterator[Row]:
    """The larger OneRec, and from it the preference rows."""
    model = onerec_of(at)
    if "onerec-l" in wanted:
        yield _generative("onerec-l", model, recommend_sessions(model, at.world, at.form), at)
    aligner: Aligner | None = None
    reward: RewardModel | None = None
    for name in RECIPES:
        if f"onerec-l-{name}" not in wanted:
            continue
        if aligner is None or reward is None:
            reward = reward_of(at)
            aligner = Aligner(model, reward, at.world, at.form, at.seed)
        yield _aligned(name, model, aligner, reward, at)


def _aligned(name: str, model: OneRec, aligner: Aligner, reward: RewardModel, at: Context) -> Row:
    """A preference row; of IPA and the control also what the model of each round recommends."""
    recipe, rounds = RECIPES[name], list[Round]()

    def keep(one: OneRec) -> None:
        if recipe.by_round:
            found = recommend_sessions(copy.deepcopy(one), at.world, at.form)
            rewards = predicted(reward, at.world, at.world.rows.catalogue, at.config, found.sessions)
            rounds.append(Round(found, rewards))

    keep(model)
    aligned = aligner.aligned(recipe, keep)
    found = rounds[-1].recommended if rounds else recommend_sessions(aligned, at.world, at.form)
    return _generative(f"onerec-l-{name}", aligned, found, at, tuple(rounds))


def parameters_of(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
