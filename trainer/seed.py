"""The seed: a first model from the histories before the stream, within a budget of wall time or of samples.

Recipe (each part measured on KuaiRand): softmax over legal codes; positives count in full, the other exposures in
full at first and not at all at the end; newest sessions more often; like lengths in a batch; no dropout by default,
since a seed sees its samples about once; and a learning rate that decays to almost nothing over the budget: most of the
gain comes with the decay, so it follows the share of the budget that is consumed.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from onerec.catalogue import CatalogueSnapshot
from onerec.errors import CheckFailedError
from onerec.model.onerec import OneRec
from onerec.settings import SeedSettings
from trainer import metrics
from trainer.batches import SessionBatch
from trainer.budget import Budget
from trainer.fixed_shapes import Targets, padded
from trainer.lesson import teach
from trainer.objectives import history_reward_loss, next_token_loss
from trainer.parts import Part, each_part, weighted
from trainer.placement import moved
from trainer.recorded import RecordedGradients, can_record
from trainer.samples import Rows, Samples, Source, sample_batch
from trainer.seed_mode import SeedMode, leave_seed
from trainer.shards import Shards
from trainer.state import TrainState, adamw, step_seed
from trainer.update import Rates

LOG = logging.getLogger(__name__)
TELL_S = 5.0


@dataclass(frozen=True, slots=True)
class SeedStep:
    """One step of the seed, for the journal."""

    step: int
    seed: int
    learning_rate: float
    losses: dict[str, float]
    """By objective; `share` is what the budget said before the step, which `budget.Recorded` takes."""


def train_seed(
    state: TrainState,
    samples: Samples,
    catalogue: CatalogueSnapshot,
    budget: Budget,
    *,
    on_step: Callable[[SeedStep], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Train `state` until the budget is spent; without samples it stays as it was made.

    A function of state, samples, catalogue and the shares that the budget tells. Optimizers start afresh
    afterwards. Raises CheckFailedError where a loss is not finite: there is no earlier state to keep.
    """
    if not samples.positives.any():
        LOG.warning("no history is long enough to learn from: the seed stays untrained")
    else:
        in_parts = state.parallel is not None or state.parts > 1
        lessons = (_LessonsInParts if in_parts else _Lessons)(state, samples, catalogue)
        try:
            _run(lessons, budget, on_step, stopped)
        finally:
            lessons.close()
    metrics.SEED_PROGRESS.set(1.0)
    leave_seed(state)


def _run(lessons: _Lessons, budget: Budget, on_step: Callable[[SeedStep], None], stopped: Callable[[], bool]) -> None:
    started_s = told_s = time.monotonic()
    while (share := budget.share(lessons.state.step, lessons.done)) < 1.0 and not stopped():
        step = lessons.step(share)
        on_step(step)
        if time.monotonic() - told_s >= TELL_S:
            told_s = time.monotonic()
            rate = lessons.done / (told_s - started_s)
            LOG.info("seed: %3.0f %%, loss %.3f, %.0f samples/s", 100 * share, step.losses["next_token"], rate)
    LOG.info("seed: %d samples, %d steps, %.1f s", lessons.done, lessons.state.step, time.monotonic() - started_s)


def learning_rate_share(share: float, settings: SeedSettings) -> float:
    """Share of the full learning rate: linear warm-up over `warmup_share`, times linear decay to `final_share`."""
    warm = min(1.0, 0.02 + share / settings.warmup_share) if settings.warmup_share else 1.0
    return warm * (1.0 - (1.0 - settings.final_share) * min(1.0, share))


class _Lessons:
    """The steps of one seed."""

    def __init__(self, state: TrainState, samples: Samples, catalogue: CatalogueSnapshot) -> None:
        self.state = state
        self.done = 0
        self._samples, self._catalogue = samples, catalogue
        self._source = Source(samples, state.settings.seed, state.settings.random_seed)
        self._onerec_optimizer = adamw(state.onerec, 0.0, state.settings)
        self._reward_optimizer = adamw(state.reward, 0.0, state.settings)
        self._mode = SeedMode(state)  # before the replicas are copied
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the second core has a shard of its own
        recorded = state.settings.cuda_graphs and can_record(state.onerec)
        self._recorded = RecordedGradients(state.onerec, state.reward) if recorded else None
        # A GPU computes the whole batch at once.
        self._shards = Shards(state.onerec, state.settings.seed.threads if state.device.type == "cpu" else 1)

    def step(self, share: float) -> SeedStep:
        """Teach both models, each on a batch of its own; the reward model less often, it learns faster."""
        state, settings = self.state, self.state.settings.seed
        seed = step_seed(state.settings.random_seed, state.step + 1)
        torch.manual_seed(seed)
        rate = learning_rate_share(share, settings)
        losses = {"next_token": self._next_token(share, rate * settings.learning_rate)}
        if state.step % settings.reward_every == 0:
            losses["reward"] = self._reward(rate * settings.learning_rate)
        state.step += 1
        for name, loss in losses.items():
            metrics.LOSS.labels(name).set(loss)
            if not torch.isfinite(torch.tensor(loss)):
                raise CheckFailedError(
                    f"The seed's {name} loss is {loss} at step {state.step}.", "Lower trainer.seed.learning_rate."
                )
        metrics.SEED_PROGRESS.set(share)
        return SeedStep(state.step, seed, rate * settings.learning_rate, losses | {"share": share})

    def close(self) -> None:
        """Give back what the steps took."""
        self._shards.close()
        torch.set_num_threads(self._threads)
        self._mode.end()

    def _next_token(self, share: float, learning_rate: float) -> float:
        rows = self._source.next_token(share)
        floor = self.state.settings.seed.negative_weight * (1.0 - share)
        loss = self._gradients(rows, floor) if self._recorded is None else self._recorded_gradients(rows, floor)
        _update(self.state.onerec, self._onerec_optimizer, learning_rate, self.state.settings.clip_norm)
        self.state.onerec.update_expert_bias(self.state.settings.expert_bias_rate)
        self.done += len(rows)
        metrics.SEED_SAMPLES.inc(len(rows))
        return loss

    def _gradients(self, rows: Rows, floor: float) -> float:
        count = min(len(self._shards), len(rows))
        parts = [self._batch(rows[shard::count].copy(), floor) for shard in range(count)]
        weights = [float(part.weight.sum()) for part in parts]
        losses = [self._part(part, weight / sum(weights)) for part, weight in zip(parts, weights, strict=True)]
        return self._shards.backward(losses)

    def _recorded_gradients(self, rows: Rows, floor: float) -> float:
        """The same by a CUDA graph."""
        assert self._recorded is not None
        state, trie = self.state, self.state.trie(self._catalogue.trie)
        self._onerec_optimizer.zero_grad(set_to_none=True)
        whole = padded(self._batch(rows, floor), state.config, state.settings.seed.batch)
        batch = moved(whole, state.device)
        seed = step_seed(state.settings.random_seed, state.step + 1)
        loss = self._recorded.add(
            batch, Targets.of(batch.leaves, trie, state.config), seed=seed, reward=False
        ).next_token
        assert loss is not None, "every sample has a positive"
        return loss.item()

    def _part(self, part: SessionBatch, share: float) -> Callable[[OneRec], Tensor]:
        placed, trie = moved(part, self.state.device), self.state.trie(self._catalogue.trie)

        def loss(replica: OneRec) -> Tensor:
            value = next_token_loss(replica, placed, trie)
            assert value is not None, "every sample has a positive"
            return value * share

        return loss

    def _reward(self, learning_rate: float) -> float:
        batch = moved(self._batch(self._source.reward(), 0.0), self.state.device)
        loss = history_reward_loss(self.state.reward, batch)
        self._reward_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        _update(self.state.reward, self._reward_optimizer, learning_rate, self.state.settings.clip_norm)
        return loss.item()

    def _batch(self, rows: Rows, floor: float) -> SessionBatch:
        batch = sample_batch(self._samples, rows, self._catalogue, self.state.config)
        return dataclasses.replace(batch, weight=batch.weight.clamp(min=floor))


class _LessonsInParts(_Lessons):
    """The same in one part for each rank instead of each thread, with the state's own optimizers.

    These are fresh before the seed and start afresh after it.
    """

    def __init__(self, state: TrainState, samples: Samples, catalogue: CatalogueSnapshot) -> None:
        super().__init__(state, samples, catalogue)
        torch.set_num_threads(state.settings.threads)

    def _next_token(self, share: float, learning_rate: float) -> float:
        rows = self._source.next_token(share)
        floor = self.state.settings.seed.negative_weight * (1.0 - share)
        batches = each_part(rows, self.state.parts, lambda mine: self._batch(mine.copy(), floor))
        each = weighted(batches, [float(batch.weight.sum()) if batch else 0.0 for batch in batches])
        loss = self._teach([Part(sessions=one) for one in each], learning_rate)["next_token"]
        self.done += len(rows)
        metrics.SEED_SAMPLES.inc(len(rows))
        return loss

    def _reward(self, learning_rate: float) -> float:
        rows = self._source.reward()
        batches = each_part(rows, self.state.parts, lambda mine: self._batch(mine.copy(), 0.0))
        each = weighted(batches, [float(len(batch.leaves)) if batch else 0.0 for batch in batches])
        return self._teach([Part(rated=one) for one in each], learning_rate)["reward"]

    def _teach(self, parts: list[Part], learning_rate: float) -> dict[str, float]:
        """Raises CheckFailedError where a loss or a gradient is not finite."""
        figures, refused = teach(self.state, parts, self._catalogue, Rates(learning_rate, learning_rate), past=True)
        if refused:
            raise CheckFailedError(
                f"The seed stopped after step {self.state.step}: {refused}.", "Lower trainer.seed.learning_rate."
            )
        return figures


def _update(model: nn.Module, optimizer: AdamW, learning_rate: float, clip_norm: float) -> None:
    clip_grad_norm_(model.parameters(), clip_norm, foreach=True)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
