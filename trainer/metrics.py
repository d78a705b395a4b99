"""Metrics of the trainer."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from onerec.model.moe import SparseMoE
from trainer.state import TrainState
from trainer.step import StepResult

LOSS = Gauge("trainer_loss", "Loss of the last step that had it.", ["objective"])
STEP = Gauge("trainer_step", "Steps since the seed began.")
STEPS = Counter("trainer_steps_total", "Steps that changed the weights.")
REFUSED = Counter("trainer_refused_steps_total", "Steps that left the weights as they were.", ["reason"])
SESSIONS = Counter("trainer_sessions_total", "Sessions applied.")
PAIRS = Counter("trainer_pairs_total", "Preference pairs applied.")
DUPLICATES = Counter("trainer_duplicates_total", "Sessions and pairs that had been applied before.")
LEARNING_RATE = Gauge("trainer_learning_rate", "Learning rate of the last step.")
EXPERT_LOAD = Gauge("trainer_expert_load", "Share of the last batch's rows.", ["block", "expert"])
VERSION = Gauge("trainer_version", "Newest version published.")
LAG_EVENTS = Gauge("trainer_lag_events", "Messages on sessions, preferences and item-tokens not applied yet.")
LAG_SECONDS = Gauge("trainer_lag_seconds", "Age of the oldest session not applied yet, from its last action on.")
STEP_SECONDS = Histogram("trainer_step_seconds", "Time of a step.", buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30))
BATCH_WAIT_SECONDS = Histogram(
    "trainer_batch_wait_seconds",
    "From the reading of a step's first record to the start of the step: batch_wait_ms, or the step before.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 5, 30),
)
PUBLISH_WAIT_SECONDS = Histogram(
    "trainer_publish_wait_seconds",
    "From the end of the first step that a version lacks to the start of the next one's making.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 30),
)
PUBLISH_SECONDS = Histogram(
    "trainer_publish_seconds", "Time for a version, the step loop waits.", buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30)
)
CHECKPOINT_SECONDS = Histogram(
    "trainer_checkpoint_seconds",
    "Time for a checkpoint, the step loop waits.",
    buckets=(0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
CHECKPOINT_FAILURES = Counter("trainer_checkpoint_failures_total", "Checkpoints that the disk did not take.")
STORE_FAILURES = Counter("trainer_store_failures_total", "Attempts to write a version that the store did not take.")
DIFFERENT = Counter("trainer_versions_differing_total", "Versions that the journal did not lead to again at resume.")
KERNELS = Gauge("trainer_kernels", "1 for the kernels that steps are computed by; others round otherwise.", ["kernels"])
SEED_PROGRESS = Gauge("trainer_seed_progress_ratio", "Share of the seed's budget that is done.")
SEED_SAMPLES = Counter("trainer_seed_samples_total", "Samples that the seed was trained on.")


def observe_step(state: TrainState, result: StepResult, seconds: float) -> None:
    """Count a step."""
    STEP_SECONDS.observe(seconds)
    STEP.set(result.step)
    LEARNING_RATE.set(result.learning_rate)
    DUPLICATES.inc(result.duplicates)
    if result.refused is not None:
        REFUSED.labels(result.refused.split(":")[0]).inc()
        return
    STEPS.inc()
    SESSIONS.inc(result.sessions)
    PAIRS.inc(result.pairs)
    for name, value in result.losses.items():
        LOSS.labels(name).set(value)
    observe_experts(state)


def tell_kernels(name: str) -> None:
    """What the trainer computes by: a name of `trainer.kernels`."""
    KERNELS.clear()
    KERNELS.labels(name).set(1)


def observe_experts(state: TrainState) -> None:
    """How the last forward's rows were spread over the experts."""
    for block, layer in enumerate(state.onerec.decoder.blocks):
        moe = layer.moe
        assert isinstance(moe, SparseMoE)
        total = max(1, int(moe.load.sum()))
        for expert, rows in enumerate(moe.load.tolist()):
            EXPERT_LOAD.labels(str(block), str(expert)).set(rows / total)
