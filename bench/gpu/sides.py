"""What is timed: a batch of requests, a training step, the peer's search, and the device's rate of multiplication."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from bench.bench import rounded
from bench.gpu import worlds
from inference.engine import captures
from inference.engine.search import Engine
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel
from onerec.model.sizes import sizes
from onerec.settings import TrainerSettings
from trainer.fixed_shapes import Targets, padded
from trainer.objectives import next_token_loss, session_reward_loss
from trainer.placement import moved
from trainer.recorded import RecordedGradients, can_record
from trainer.state import adamw

WARM = captures.CAPTURED_FROM + 1
SEEN = 50


def timed(work: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Seconds of each repetition, at least three, the device's work included."""
    took: list[float] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or len(took) < 3:
        _wait(device)
        started_s = time.perf_counter()
        work()
        _wait(device)
        took.append(time.perf_counter() - started_s)
    return took


def gemm(device: torch.device, size: int, seconds: float) -> float:
    """Floating-point operations a second of square bfloat16 products of random numbers."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / statistics.median(timed(lambda: torch.mm(a, b), device, seconds))


@torch.inference_mode()
def decode(
    config: ModelConfig, device: torch.device, *, beam: int, batch: int, items: int, seconds: float, graphs: bool = True
) -> dict[str, Any]:
    """A batch of requests, each without 50 items that it has seen: as the worker has them."""
    known = worlds.catalogue(config, items)
    history = worlds.histories(config, known, batch)
    seen = [torch.from_numpy(own) for own in np.random.default_rng(3).integers(0, len(known), (batch, SEEN))]
    engine = Engine(worlds.model(config, device).eval())
    before = captures.CAPTURED_FROM
    captures.CAPTURED_FROM = before if graphs else 1 << 30
    try:

        def work() -> list[Any]:
            found: list[Any] = engine.generate(history, known, beam_width=beam, exclude=seen).sessions.tolist()
            return found

        for _ in range(WARM):
            work()
        took = timed(work, device, seconds)
    finally:
        captures.CAPTURED_FROM = before
    median = statistics.median(took)
    return {
        "batch": batch,
        "beam": beam,
        "dtype": str(engine.dtype).removeprefix("torch."),
        "graphs": 0 if engine._captured is None else engine._captured.graphs,
        "items": len(known),
        "requests_per_s": rounded(batch / median),
        "ms_a_batch": rounded(1000 * median),
        "spread": rounded((max(took) - min(took)) / median),
        "flops_per_s": rounded(batch / median * request_flops(config, beam)),
    }


def request_flops(config: ModelConfig, beam: int) -> int:
    """Of one request: products and attention alone."""
    found = sizes(dataclasses.replace(config, beam_width=beam))
    return found.encode_flops + found.decode_flops


def train(
    config: ModelConfig, device: torch.device, *, batch: int, items: int, seconds: float, repeatable: bool = True
) -> dict[str, Any]:
    """Forward, backward, clipping and AdamW on a batch with full histories and full sessions.

    `repeatable`: by kernels that repeat their bits, as the trainer's are.
    """
    settings, known = TrainerSettings(), worlds.catalogue(config, items)
    model = worlds.model(config, device).train()
    optimizer = adamw(model, settings.learning_rate, settings)
    lesson, trie = moved(worlds.sessions(config, known, batch), device), known.trie.to(device)

    def work() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = next_token_loss(model, lesson, trie)
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(model.parameters(), settings.clip_norm, foreach=True)
        optimizer.step()
        model.update_expert_bias(settings.expert_bias_rate)
        return float(loss.detach())

    took = _learning(work, device, seconds, repeatable=repeatable)
    return {
        "batch": batch,
        "repeatable": repeatable,
        "products": "bfloat16" if config.bf16 and device.type != "cpu" else "float32",
        **_rates(config, device, batch, took),
    }


def step(
    config: ModelConfig, device: torch.device, *, batch: int, items: int, seconds: float, graphs: bool = True
) -> dict[str, Any]:
    """What the trainer does on sessions of both models: losses, gradients, clipping, AdamW, the experts' biases.

    With `graphs` in fixed shapes, forward and backward recorded; without, in the objectives' exact shapes.
    """
    settings, known = TrainerSettings(), worlds.catalogue(config, items)
    onerec = worlds.model(config, device).train()
    with device:
        reward = RewardModel(config).train()
    optimizers = [adamw(model, settings.learning_rate, settings) for model in (onerec, reward)]
    lesson, trie = worlds.sessions(config, known, batch), known.trie.to(device)
    recorded = RecordedGradients(onerec, reward) if graphs and can_record(onerec) else None

    def gradients() -> list[float]:
        if recorded is not None:
            placed = moved(padded(lesson, config, batch), device)
            targets = Targets.of(placed.leaves, trie, config)
            found = recorded.add(placed, targets, seed=1)
            return [loss.item() for loss in found if loss is not None]
        placed = moved(lesson, device)
        losses = [next_token_loss(onerec, placed, trie), session_reward_loss(reward, placed)]
        for loss in losses:
            assert loss is not None
            loss.backward()  # type: ignore[no-untyped-call]
        return [loss.item() for loss in losses if loss is not None]

    def work() -> float:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses = gradients()
        for model, optimizer in zip((onerec, reward), optimizers, strict=True):
            clip_grad_norm_(model.parameters(), settings.clip_norm, foreach=True).item()
            optimizer.step()
        onerec.update_expert_bias(settings.expert_bias_rate)
        return losses[0]

    took = _learning(work, device, seconds)
    return {
        "batch": batch,
        "graphs": 0 if recorded is None else recorded.graphs,
        **_rates(config, device, batch, took),
    }


def _learning(
    work: Callable[[], float], device: torch.device, seconds: float, *, repeatable: bool = True
) -> list[float]:
    """Seconds of each step on one and the same batch, whose loss has to fall."""
    torch.use_deterministic_algorithms(repeatable)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        first = work()
        for _ in range(2):  # a shape is recorded when it comes again
            work()
        took = timed(work, device, seconds)
        last = work()
    finally:
        torch.use_deterministic_algorithms(False)
    assert last < first, "the same batch again and again, and its loss does not fall"
    return took


def _rates(config: ModelConfig, device: torch.device, batch: int, took: Sequence[float]) -> dict[str, Any]:
    """Of steps of so many samples that took so many seconds each."""
    median = statistics.median(took)
    return {
        "samples_per_s": rounded(batch / median),
        "ms_a_step": rounded(1000 * median),
        "spread": rounded((max(took) - min(took)) / median),
        "flops_per_s": rounded(batch / median * sizes(config).train_flops),
        "memory_gb": rounded(torch.cuda.max_memory_allocated(device) / 1e9) if device.type == "cuda" else None,
    }


@torch.inference_mode()
def peer(device: torch.device, *, beam: int, batch: int, seconds: float) -> dict[str, Any]:
    """The benches' T5 by transformers' `generate` in bfloat16: 15 tokens, no catalogue, less work than ours."""
    import transformers  # noqa: PLC0415 - not a dependency

    from bench.decoding import t5  # noqa: PLC0415
    from bench.decoding.transformers_generate import FREE_TOKENS  # noqa: PLC0415

    model, inputs = t5.model(torch.bfloat16).to(device), t5.inputs(batch).to(device)

    def work() -> list[Any]:
        found = model.generate(
            inputs,
            num_beams=beam,
            num_return_sequences=beam,
            do_sample=False,
            min_new_tokens=FREE_TOKENS,
            max_new_tokens=FREE_TOKENS,
        )
        tokens: list[Any] = found.tolist()
        return tokens

    work()
    median = statistics.median(timed(work, device, seconds))
    return {
        "peer": f"transformers {transformers.__version__} generate",
        "batch": batch,
        "beam": beam,
        "requests_per_s": rounded(batch / median),
        "ms_a_batch": rounded(1000 * median),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
