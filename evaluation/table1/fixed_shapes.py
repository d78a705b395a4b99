"""OneRec's next-token training in fixed shapes: the seed recipe of the trainer as a GPU wants it.

The trainer computes what a batch's loss depends on and no more: rows that are covered, experts on the rows routed to
them. How much that is, the host has to be told in every step. Here every expert runs on every row, and what was not
chosen weighs nothing; histories are as long as they may be. So a step is the same kernels each time, with the same
loss, and can be recorded. Samples lie on the device; a batch is told by its rows.
Letters: B samples of a batch, m items of a session, n of a history, L levels, R rows, E experts, d width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.baselines.recorded import RecordedSteps
from onerec.catalogue import CatalogueSnapshot
from onerec.model.attention import causal_bias, padding_bias
from onerec.model.batches import HistoryBatch
from onerec.model.blocks import DecoderBlock
from onerec.model.likelihood import legal_log_softmax, ntp_loss
from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.model.precision import widen
from onerec.model.presets import ModelConfig
from onerec.model.swiglu import swiglu
from onerec.model.trie import Trie
from onerec.settings import SeedSettings, TrainerSettings
from trainer.batches import positive
from trainer.budget import SampleCount
from trainer.samples import Rows, Samples, Source
from trainer.seed import learning_rate_share

LOG = logging.getLogger(__name__)
TOLD_STEPS = 500


class EveryExpert(SparseMoE):
    """The mixture with all experts computed: E / k times the products, and nothing that depends on the routing."""

    @classmethod
    def of(cls, moe: SparseMoE) -> Self:
        """The same parameters and buffers under the same names."""
        with torch.device("meta"):
            own = cls(moe.w_in.shape[1], moe.w_out.shape[1], moe.experts, moe.active)
        own.centroids, own.w_in, own.w_out = moe.centroids, moe.w_in, moe.w_out
        own.bias, own.load = moe.bias, moe.load
        return own.train(moe.training)

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Rows x [R, d] -> [R, d] without the residual; `counted` bool [R] are those that enter the load, or all."""
        gates, chosen = self.route(x)
        routed = chosen.unsqueeze(-1) == torch.arange(self.experts, device=x.device)  # [R, k, E]
        self.load = (routed if counted is None else routed & counted[:, None, None]).sum((0, 1))
        shares = (routed * gates.unsqueeze(-1)).sum(1)  # [R, E]
        rows = x.expand(self.experts, *x.shape)
        hidden = swiglu(torch.bmm(rows, self.w_in.to(x.dtype)))  # [E, R, h]
        weighed = (hidden * shares.t().unsqueeze(-1).to(hidden.dtype)).transpose(0, 1).flatten(1)
        mixed: Tensor = weighed @ self.w_out.to(x.dtype).flatten(0, 1)
        return mixed


def place(model: OneRec, device: torch.device) -> OneRec:
    """Move a model to a device, where every expert of it runs unless that is a CPU."""
    model.to(device)
    if device.type != "cpu":
        for block in model.decoder.stack():
            block.moe = EveryExpert.of(block.moe)
    return model


def session_log_probs(model: OneRec, history: HistoryBatch, leaves: Tensor, trie: Trie, counted: Tensor) -> Tensor:
    """`onerec.model.likelihood.token_log_probs` [B, m, L] of whole sessions `leaves` [B, m], in fixed shapes.

    Samples where `counted` bool [B] is False do not enter the experts' load. Every expert of the model runs.
    """
    memory = model.encode(history)
    x = model.dropout(model.decoder_inputs(trie.codes_of(leaves)))
    causal, padding, dtype = causal_bias(x.shape[1], x.device), padding_bias(memory.mask), memory.states.dtype
    (batch, items), levels = leaves.shape, trie.levels
    tokens = torch.arange(x.shape[1], device=x.device)
    followed = counted.unsqueeze(1) & (tokens < x.shape[1] - 1)  # nothing depends on the last code
    *blocks, last = model.decoder.stack()
    for block in blocks:
        x = block.attend(x, causal, memory.states, padding)
        x = _mix(block, x.flatten(0, 1), dtype, followed.flatten()).view_as(x)
    x = last.attend(x, causal, memory.states, padding)
    asked = x.view(batch * items, levels + 1, -1)[:, :levels]
    wanted = counted.repeat_interleave(items * levels)
    hidden = model.decoder.norm(_mix(last, asked.flatten(0, 1), dtype, wanted)).view(batch * items, levels, -1)
    nodes, rank = trie.path_targets(leaves.flatten())
    columns = [
        legal_log_softmax(widen(model.logits(level, hidden[:, level])), trie, level, nodes[:, level]).gather(
            1, rank[:, level : level + 1].long()
        )
        for level in range(levels)
    ]
    return torch.cat(columns, dim=1).view(batch, items, levels)


def _mix(block: DecoderBlock, rows: Tensor, dtype: torch.dtype, counted: Tensor) -> Tensor:
    """`DecoderBlock.mix` where only some rows enter the load."""
    assert isinstance(block.moe, EveryExpert)
    mixed: Tensor = block.moe(block.moe_norm(rows, dtype), counted)
    out: Tensor = rows + block.dropout(mixed.to(rows.dtype))
    return out


@dataclass(frozen=True, slots=True)
class SampleTable:
    """`trainer.samples.Samples` on a device."""

    leaves: Tensor  # int64 [events]
    labels: Tensor  # int64 [events]
    weight: Tensor  # float32 [events]: 1 where positive
    first: Tensor  # int64 [S]
    begin: Tensor  # int64 [S]

    @classmethod
    def of(cls, samples: Samples, device: torch.device) -> Self:
        """Copy."""
        columns = (samples.leaves, samples.labels, positive(samples.labels).astype(np.float32))
        places = (samples.first, samples.begin)
        return cls(*(torch.from_numpy(column).to(device) for column in (*columns, *places)))

    def batch(
        self, rows: Tensor, trie: Trie, config: ModelConfig, floor: Tensor
    ) -> tuple[HistoryBatch, Tensor, Tensor]:
        """Of samples int64 [B]: histories padded to n, sessions [B, m], and weights [B, m] of `floor` or more.

        Rows of -1 are no samples and weigh nothing.
        """
        real, rows = rows >= 0, rows.clamp(min=0)
        first, begin = self.first[rows], self.begin[rows]
        steps = torch.arange(config.history_items, device=rows.device)
        mask = steps < ((begin - first) * real).unsqueeze(1)
        events = torch.where(mask, first.unsqueeze(1) + steps, 0)
        codes = trie.codes_of(self.leaves[events]) * mask.unsqueeze(2)
        session = begin.unsqueeze(1) + torch.arange(config.session_items, device=rows.device)
        weight = torch.maximum(self.weight[session], floor) * real.unsqueeze(1)
        return HistoryBatch(codes, self.labels[events] * mask, mask), self.leaves[session], weight


def next_token_loss(model: OneRec, table: SampleTable, trie: Trie, rows: Tensor, floor: Tensor | None = None) -> Tensor:
    """`trainer.objectives.next_token_loss` of samples int64 [B], -1 for none, with weights of `floor` or more."""
    least = torch.zeros((), device=rows.device) if floor is None else floor
    history, leaves, weight = table.batch(rows, trie, model.config, least)
    return ntp_loss(session_log_probs(model, history, leaves, trie, rows >= 0), weight)


def train(
    model: OneRec,
    samples: Samples,
    catalogue: CatalogueSnapshot,
    budget: SampleCount,
    settings: TrainerSettings,
) -> None:
    """`trainer.seed.train_seed` of a model that `place` has put on its device: the same batches, weights and rates.

    Raises CheckFailedError where the loss is not finite.
    """
    device, seed = model.bos.device, settings.seed
    table, trie = SampleTable.of(samples, device), catalogue.trie.to(device)
    batches = _batches(samples, budget, seed, settings.random_seed)
    rows = np.full((len(batches), seed.batch), -1)
    for row, (_, own) in zip(rows, batches, strict=True):
        row[: len(own)] = own
    shares = [share for share, _ in batches]
    floors = torch.tensor([seed.negative_weight * (1.0 - share) for share in shares], device=device)
    usual = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    for module in usual:
        module.p = seed.dropout

    def loss(_: int, rows: Tensor, floor: Tensor) -> Tensor:
        return next_token_loss(model, table, trie, rows, floor)

    placed = torch.from_numpy(rows).to(device)
    recorded = RecordedSteps(
        model.train(),
        loss,
        [placed[0], floors[0]],
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        after=lambda: model.update_expert_bias(settings.expert_bias_rate),
    )
    for step, share in enumerate(shares):
        recorded.step(0, [placed[step], floors[step]], learning_rate_share(share, seed) * seed.learning_rate)
        if (step + 1) % TOLD_STEPS == 0 or step + 1 == len(shares):
            LOG.info("seed: %3.0f %%, loss %.3f", 100 * share, recorded.mean_loss("the seed"))
    for module, probability in usual.items():
        module.p = probability


def _batches(
    samples: Samples, budget: SampleCount, settings: SeedSettings, random_seed: int
) -> list[tuple[float, Rows]]:
    """What the trainer's seed would take, step by step: the share of the budget before it, and its samples."""
    source, found, done = Source(samples, settings, random_seed), list[tuple[float, Rows]](), 0
    while (share := budget.share(len(found), done)) < 1.0:
        found.append((share, source.next_token(share)))
        done += len(found[-1][1])
        if len(found) == 1:
            source.reward()  # its reward model learns once, from the same random numbers
    return found
