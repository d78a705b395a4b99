"""Our side of the training benches: the next-token loss of a batch of sessions, as the trainer learns it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from bench.decoding import shapes
from onerec.heap import use_freed_memory_again
from onerec.model.onerec import OneRec
from onerec.model.sizes import sizes
from onerec.settings import TrainerSettings
from trainer import kernels
from trainer.batches import SessionBatch
from trainer.objectives import next_token_loss
from trainer.state import adamw


class Step:
    """Side: forward, backward, clipping and AdamW on a batch with full histories and full sessions."""

    def __init__(self, *, batch: int, threads: int, experts: int = 1, hidden: int = shapes.HIDDEN) -> None:
        self._batch, self._threads = batch, threads
        self._shape = shapes.config(experts=experts, hidden=hidden, bf16=True)
        self._settings = TrainerSettings()

    def prepare(self) -> dict[str, Any]:
        """Model, optimizer, batch and one step to warm up."""
        torch.set_num_threads(self._threads)
        use_freed_memory_again()  # as the trainer's process does
        kernels.choose(self._settings, torch.device("cpu"))
        torch.manual_seed(0)
        self._model = OneRec(self._shape).train()
        self._optimizer = adamw(self._model, self._settings.learning_rate, self._settings)
        catalogue = shapes.catalogue()
        self._trie = catalogue.trie
        leaves = torch.from_numpy(
            np.random.default_rng(2).integers(0, shapes.ITEMS, (self._batch, shapes.SESSION_ITEMS))
        )
        self._lesson = SessionBatch(
            history=shapes.histories(self._batch, catalogue.codes),
            leaves=leaves,
            codes=catalogue.trie.codes_of(leaves),
            labels=torch.ones_like(leaves),
            weight=torch.ones(leaves.shape),
            durations_ms=torch.zeros_like(leaves),
            watch_ms=torch.zeros(self._batch, dtype=torch.int64),
        )
        self.repeat()
        return {
            "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
            "flops_a_sample": sizes(self._shape).train_flops,
            "batch": self._batch,
            "threads": self._threads,
            "kernels": kernels.name(),
        }

    def repeat(self) -> dict[str, Any]:
        """One step."""
        started_s = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        loss = next_token_loss(self._model, self._lesson, self._trie)
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self._model.parameters(), self._settings.clip_norm, foreach=True)
        self._optimizer.step()
        self._model.update_expert_bias(self._settings.expert_bias_rate)
        return {"seconds": time.perf_counter() - started_s, "loss": float(loss.detach())}
