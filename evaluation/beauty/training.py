"""Training of a generative row: AdamW, weights averaged over steps, the best epoch by the validation item.

A function of data, recipe and seed on one kind of device. The test item is not looked at.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from evaluation.baselines.recorded import RecordedSteps
from evaluation.baselines.training import BETAS, CLIP_NORM, rate_share
from evaluation.beauty.looks import looks_at
from evaluation.beauty.model import ItemOneRec, code_loss, history_of, item_loss
from evaluation.beauty.progress import Kept, Progress
from evaluation.beauty.samples import Samples
from evaluation.beauty.teaching import lesson, taught_loss
from onerec.model.batches import HistoryBatch
from onerec.model.moe import SparseMoE
from onerec.model.onerec import Memory
from onerec.model.trie import Trie

LOG = logging.getLogger(__name__)
EXPERT_BIAS_RATE = 1e-3
TIMED_EPOCHS = 3
WIDTHS = (4, 8, 12, 20)
"""Of histories on a GPU, which has a graph for each; on a CPU a batch is as wide as its longest history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and by which steps."""

    epochs: int = 30
    batch: int = 2048
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.0
    """Share of a target that goes to the other codes, or items."""
    item_weight: float = 0.0
    """Of the loss over items, beside that over codes."""
    taught_share: float = 0.0
    """Share of the codes' loss that item vectors give (see evaluation.beauty.teaching)."""
    backward_share: float = 0.0
    """Samples read backwards, as a share of those read forwards."""
    averaged_share: float = 0.02
    """Weights are averaged over about so much of the steps: an exponential average with that time constant."""
    looks: int = 3
    """How often validation is looked at, evenly over the second half."""
    bf16: bool = True
    """Products in bfloat16 on CPUs that have them in hardware; what is looked at and kept ranks in float32."""
    seconds: float | None = None
    """Where so long is not enough for the epochs, there are fewer of them; how many is in the results."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The averaged weights at the best look, and how it went."""

    model: ItemOneRec
    history: dict[str, Any]


class Learner:
    """One model in training, and the average of its weights."""

    def __init__(
        self, model: ItemOneRec, samples: Samples, trie: Trie, recipe: Recipe, *, size: int, steps: int
    ) -> None:
        self._forget = 1 / max(1.0, recipe.averaged_share * steps)
        self._model, self._samples, self._trie, self._recipe = model.train(), samples, trie, recipe
        self.averaged = copy.deepcopy(model).eval()
        self._gpu = model.bos.device.type == "cuda"
        model.bf16 = recipe.bf16 and not self._gpu
        self._steps = RecordedSteps(
            model,
            self._loss,
            [samples.targets.new_zeros(size)],
            betas=BETAS,
            weight_decay=recipe.weight_decay,
            clip_norm=CLIP_NORM,
            after=self._average,
        )

    def step(self, rows: Tensor, longest: int, rate: float) -> None:
        """One step on rows [B] of the samples, whose histories have at most `longest` items."""
        width = next(width for width in WIDTHS if width >= longest) if self._gpu else longest
        self._steps.step(width, [rows], rate)

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average and the optimizer's state."""
        return {
            "model": self._model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._steps.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, before the first step."""
        self._model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self._steps.load_state_dict(state["optimizer"])

    def mean_loss(self) -> float:
        """Of the steps since the last call. Raises CheckFailedError where it is not finite."""
        return self._steps.mean_loss("OneRec")

    def _loss(self, width: int, rows: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # of so short histories: a GPU's fused kernels take a third of the step
            return self._loss_of(width, rows)

    def _loss_of(self, width: int, rows: Tensor) -> Tensor:
        model, recipe, targets = self._model, self._recipe, self._samples.targets[rows]
        history = history_of(self._samples.histories[rows, :width], self._trie)
        memory = model.encode(history)
        if recipe.taught_share:
            loss = self._taught(history, memory, targets)
        else:
            loss = code_loss(model.code_log_probs(memory, targets.unsqueeze(1), self._trie), recipe.smoothing)
        if recipe.item_weight:
            loss = loss + recipe.item_weight * item_loss(model.item_logits(memory), targets, recipe.smoothing)
        return loss

    def _taught(self, history: HistoryBatch, memory: Memory, targets: Tensor) -> Tensor:
        """The codes' loss on each target and on an item that the averaged model's vectors give."""
        with torch.no_grad(), products_as_in(self._model, self.averaged):
            logits = self.averaged.item_logits(self.averaged.encode(history), self._trie.leaves_in_order())
            given = lesson(torch.softmax(logits, dim=1), self._trie)
        found = self._model.code_log_probs(memory, torch.stack([targets, given.drawn], dim=1), self._trie)
        true = code_loss([(every[0::2], place[0::2]) for every, place in found], self._recipe.smoothing)
        taught = taught_loss([every[1::2] for every, _ in found], given.shares)
        share = self._recipe.taught_share
        return (1 - share) * true + share * taught

    @torch.no_grad()
    def _average(self) -> None:
        self._model.update_expert_bias(EXPERT_BIAS_RATE)
        own: list[Tensor] = list(self._model.parameters())
        averaged: list[Tensor] = list(self.averaged.parameters())
        torch._foreach_lerp_(averaged, own, self._forget)
        for mine, theirs in zip(_experts(self._model), _experts(self.averaged), strict=True):
            theirs.bias.copy_(mine.bias)


@contextmanager
def products_as_in(one: ItemOneRec, other: ItemOneRec) -> Iterator[None]:
    """For the moment the products of `other` are in the dtype of those of `one`."""
    own, other.bf16 = other.bf16, one.bf16
    try:
        yield
    finally:
        other.bf16 = own


def _experts(model: ItemOneRec) -> list[SparseMoE]:
    return [block.moe for block in model.decoder.stack()]


def train(
    make: Callable[[], ItemOneRec],
    samples: Samples,
    trie: Trie,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    validate: Callable[[ItemOneRec], float],
    kept: Kept | None = None,
) -> Trained:
    """Train the model that `make` makes; `validate` gives what is to be high.

    Goes on from what is `kept`, which has to be of this seed and recipe: members give each a file of its own. Raises
    CheckFailedError where the loss is not finite.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    count = samples.count(recipe.backward_share)
    size = min(recipe.batch, count)
    steps_an_epoch = count // size  # what is left over waits for another epoch
    started_s, progress, kept = time.monotonic(), Progress(recipe.epochs), kept or Kept(None)
    learner = Learner(
        make().to(device), samples.to(device), trie.to(device), recipe, size=size, steps=recipe.epochs * steps_an_epoch
    )
    if kept.load(progress, learner, generator):
        started_s -= progress.seconds
        LOG.info("goes on after epoch %d of %d", progress.epoch, progress.epochs)
    while progress.epoch < progress.epochs:
        batches = samples.epoch(recipe.backward_share, size, generator)
        longest = samples.lengths[batches].amax(1).tolist()
        for batch, width in zip(batches.to(device), longest, strict=True):
            share = progress.steps / (progress.epochs * steps_an_epoch)
            learner.step(batch, width, recipe.learning_rate * rate_share(share))
            progress.steps += 1
        loss = learner.mean_loss()
        progress.epoch += 1
        progress.seconds = time.monotonic() - started_s
        _fit_in_time(progress, recipe.seconds)
        said = f"epoch {progress.epoch} of {progress.epochs}, loss {loss:.4f}, {progress.seconds:.0f} s"
        if looked := progress.epoch in looks_at(progress.epochs, recipe.looks):
            value = validate(learner.averaged)
            said += f", validation {value:.4f}"
            progress.looks.append([progress.epoch, loss, value])
            progress.best.look(progress.epoch, value, learner.averaged)
        if kept.save(progress, learner, generator) or looked:
            LOG.info("%s", said)
    progress.best.restore(learner.averaged)
    progress.seconds = time.monotonic() - started_s
    return Trained(learner.averaged, progress.history())


def _fit_in_time(progress: Progress, seconds: float | None) -> None:
    """After a few epochs: as many of them as the time is enough for."""
    if progress.epoch == 1:
        progress.first_epoch_s = progress.seconds  # of which much is preparation
    if seconds is not None and progress.epoch == TIMED_EPOCHS:
        an_epoch_s = (progress.seconds - progress.first_epoch_s) / (progress.epoch - 1)
        enough = 1 + int((seconds - progress.first_epoch_s) / an_epoch_s)
        progress.epochs = max(progress.epoch + 1, min(progress.epochs, enough))
