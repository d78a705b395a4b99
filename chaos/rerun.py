"""The run without faults: from the seed's checkpoint over the journal's steps, in one piece."""

from __future__ import annotations

from pathlib import Path

from onerec.model.presets import preset
from onerec.settings import Settings
from onerec.weights.tensors import digest
from trainer.checkpoint import load_checkpoint
from trainer.environment import make_deterministic
from trainer.guard import first_offsets
from trainer.journal import read_journal, read_story
from trainer.publish import cast
from trainer.step import apply_step
from trainer.supply import Supply

READ_TIMEOUT_S = 60.0


def rerun(settings: Settings, checkpoints: Path) -> str:
    """SHA-256 of the weights of the newest published step, executed once more on end.

    `checkpoints` is the folder under the trainer's state, which holds the seed's kept one.
    """
    make_deterministic(settings.trainer.threads)
    config = preset(settings.model.preset)
    kept = next((checkpoints / settings.model.name).glob("*-kept"))
    state, surroundings = load_checkpoint(kept, config, settings.trainer)
    entries = read_journal(
        settings.kafka, settings.model.name, start=surroundings.journal_offset, timeout_s=READ_TIMEOUT_S
    )
    story = read_story(entries, after_step=state.step)
    last = max(story.publishes)
    supply = Supply(settings.kafka, config, settings.trainer, first_offsets(settings.kafka) | state.offsets)
    try:
        for step in story.steps:
            if state.step == last:
                break
            apply_step(state, supply.again(step.ranges).step_input)
    finally:
        supply.close()
    return digest(cast(state.weights(), settings.trainer.publish_dtype))
