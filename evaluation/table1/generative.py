"""The generative rows: OneRec, which generates a session, and TIGER, which generates the next item; two sizes each.

TIGER is the same encoder-decoder without experts and with one item to generate: every code of the last 20 items is a
token of the encoder, and beam search over the codes ranks items (Rajput et al., NeurIPS 2023). It has the ids of
balanced K-means that OneRec has, instead of an RQ-VAE's: the rows then differ in what they generate alone. One row has
the RQ-VAE's ids (rqvae_ids.py), and one is the larger OneRec with the lazy decoder of OneRec-V2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from evaluation.baselines.training import CPU
from evaluation.table1 import fixed_shapes
from evaluation.table1.candidates import Longs, Recommended, ranked
from evaluation.table1.protocol import SESSION_ITEMS, TOP, Form, GenerativeTraining
from evaluation.table1.world import Side, World
from inference.engine.search import Engine
from onerec.features import history_batch
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.settings import SeedSettings, TrainerSettings
from trainer.budget import SampleCount
from trainer.samples import cut
from trainer.seed import train_seed
from trainer.state import TrainState

TIGER_ITEMS = 20
MIN_BEAM = 32
"""On this log the ten best of a beam of 32 are nearly those of exact scoring; of a beam of 10 they are not."""
CHUNK, DEVICE_CHUNK = 32, 800
"""Cases that are decoded together, on CPU and elsewhere."""


def smaller(config: ModelConfig) -> ModelConfig:
    """Half as wide."""
    return dataclasses.replace(
        config,
        name=f"{config.name}-half",
        d_model=config.d_model // 2,
        ffn_hidden=config.ffn_hidden // 2,
        expert_hidden=config.expert_hidden // 2,
        bf16_seed=False,
    )


def tiger(config: ModelConfig) -> ModelConfig:
    """TIGER with ids and width of a configuration of OneRec."""
    return dataclasses.replace(
        config,
        name=f"{config.name}-tiger",
        session_items=1,
        history_items=min(TIGER_ITEMS, config.history_items),
        history_tokens="codes",
        experts=1,
        active_experts=1,
        expert_hidden=2 * config.expert_hidden,  # as wide as the two experts of a token
    )


def train_generative(
    side: Side, config: ModelConfig, training: GenerativeTraining, seed: int, device: torch.device = CPU
) -> OneRec:
    """The seed recipe of the trainer on a side's exposures before the split."""
    settings = TrainerSettings(random_seed=seed, seed=lessons(config, training), weight_decay=training.weight_decay)
    state = TrainState.new(config, settings)
    histories = [side.history(row) for row in range(len(side.past))]
    known = cut(histories, side.catalogue, config, training.stride)
    budget = SampleCount(training.samples)
    if device.type == "cpu":
        train_seed(state, known, side.catalogue, budget, on_step=lambda _: None)
    else:
        model = fixed_shapes.place(state.onerec, device)
        fixed_shapes.train(model, known, side.catalogue, budget, state.settings)
    return state.onerec.eval()


def lessons(config: ModelConfig, training: GenerativeTraining) -> SeedSettings:
    """The seed's settings, half-lives in items: a sample of TIGER has one item and is as old as its place says.

    Counted in samples, 800,000 of TIGER's would show each user's newest item 77 times.
    """
    items = SESSION_ITEMS / config.session_items
    return SeedSettings(
        threads=1,
        reward_every=10**9,  # the reward model is trained elsewhere
        half_life=items * training.half_life,
        final_half_life=items * training.final_half_life,
        learning_rate=training.learning_rate,
        final_share=training.final_share,
        dropout=training.dropout,
    )


def recommend_sessions(model: OneRec, world: World, form: Form) -> Recommended:
    """OneRec: the beam's sessions, and the most probable first items."""
    engine = engine_of(model)
    count, m = form.candidates, SESSION_ITEMS
    sessions, ranking = np.full((len(world.cases), count, m), -1), np.full((len(world.cases), TOP), -1)
    for at, rows in _chunks(world, engine.device):
        batch = history_batch([world.rows.history(row) for row in rows], world.rows.catalogue, model.config)
        width = max(count, MIN_BEAM)
        found = engine.generate(batch, world.rows.catalogue, beam_width=width, exclude=seen(world, rows))
        sessions[at] = found.sessions[:, :count].cpu().numpy()
        ranking[at] = found.first_leaves[:, :TOP].cpu().numpy()
    return Recommended(sessions, ranking)


def recommend_items(model: OneRec, world: World, form: Form) -> Recommended:
    """TIGER: the beam's items with their log-probabilities, made into sessions as those of item-wise rows."""
    engine = engine_of(model)
    parts = []
    for _, rows in _chunks(world, engine.device):
        batch = history_batch([world.rows.history(row) for row in rows], world.rows.catalogue, model.config)
        width = max(form.candidates + SESSION_ITEMS, MIN_BEAM)
        found = engine.rank(batch, world.rows.catalogue, beam_width=width, exclude=seen(world, rows))
        leaves, values = found.sessions[:, :, 0].cpu().numpy(), found.log_probs.cpu().numpy()
        parts.append(ranked(values, leaves, SESSION_ITEMS, form.candidates, TOP))
    return Recommended(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def ranked_items(model: OneRec, world: World) -> Longs:
    """The ten most probable next items of each case, [C, 10], by a model that generates sessions or items."""
    engine, ranking = engine_of(model), np.full((len(world.cases), TOP), -1)
    for at, rows in _chunks(world, engine.device):
        batch = history_batch([world.rows.history(row) for row in rows], world.rows.catalogue, model.config)
        found = engine.rank(batch, world.rows.catalogue, beam_width=MIN_BEAM, exclude=seen(world, rows))
        ranking[at] = found.sessions[:, :TOP, 0].cpu().numpy()
    return ranking


def engine_of(model: OneRec) -> Engine:
    """Decodes for evaluation; off the CPU in the model's own precision, as all rows and the judge."""
    return Engine(model, precise=model.bos.device.type != "cpu")


def seen(world: World, rows: list[int]) -> list[torch.Tensor]:
    """What each user was exposed to before the split, which no row recommends again."""
    return [torch.from_numpy(seen_of(world, row)) for row in rows]


def seen_of(world: World, row: int) -> Longs:
    """The same of one user."""
    return world.rows.past.items[world.rows.past.user(row)]


def _chunks(world: World, device: torch.device) -> Iterator[tuple[slice, list[int]]]:
    size = CHUNK if device.type == "cpu" else DEVICE_CHUNK
    for first in range(0, len(world.cases), size):
        at = slice(first, first + size)
        yield at, world.cases.users[at].tolist()
