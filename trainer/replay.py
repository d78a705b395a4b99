"""Executing the journal again over the same records: at resume, and when a version is reproduced.

What results is bit for bit the state that the journal describes, so the killed trainer and its successor are one
and the same to everybody else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import torch

from onerec.errors import CheckFailedError
from onerec.model import backend
from schemas.records import JournalEntry
from trainer import kernels
from trainer.environment import parts_of, settings_of
from trainer.journal import Story
from trainer.publish import Publisher
from trainer.state import TrainState
from trainer.step import StepResult, apply_step
from trainer.supply import Supply

LOG = logging.getLogger(__name__)


def steps_again(
    state: TrainState, story: Story, supply: Supply, environment: Mapping[str, str]
) -> Iterator[tuple[JournalEntry, StepResult]]:
    """Execute the story's steps on `state`, each with the settings and threads of the trainer that made it.

    `environment` is that of steps whose trainer started before the story. Raises CheckFailedError where the log
    is not the journal's.
    """
    for entry, of_step in zip(story.steps, story.environments, strict=True):
        use(state, of_step or environment)
        result = apply_step(state, supply.again(entry.ranges).step_input)
        if (result.seed, result.ranges) != (entry.seed, entry.ranges):
            raise CheckFailedError(
                f"Step {entry.step} of the journal consumed something else than now.",
                "Restore the topics and settings of that run, or move the checkpoints away to train a new seed.",
            )
        yield entry, result


def use(state: TrainState, environment: Mapping[str, str]) -> None:
    """Go on as the trainer of this environment: its settings, kernels, parts of a batch and threads in each kernel."""
    kernels.use_recorded(environment)
    state.parts = parts_of(environment)
    settings = settings_of(environment)
    if settings != state.settings:
        state.use(settings)
    if torch.get_num_threads() != settings.threads:
        torch.set_num_threads(settings.threads)


def execute_again(
    state: TrainState, story: Story, supply: Supply, publisher: Publisher, environment: Mapping[str, str]
) -> None:
    """Bring `state` to the journal's last step, and announce a version that a crash kept from being announced.

    `environment` is the checkpoint's. Raises CheckFailedError where the log is not the journal's.
    """
    settings, parts, mine = state.settings, state.parts, backend.chosen()

    def publish_again() -> None:
        entry = story.publishes.get(state.step)
        if entry is not None and (entry.version or 0) > state.version:
            dtype = settings_of(story.starts.get(entry.epoch) or environment).publish_dtype
            publisher.again(entry, state, supply.catalogue.codebook_version, dtype)

    publisher.continue_from(state)
    publish_again()
    for _, result in steps_again(state, story, supply, environment):
        publisher.learned.add(result)
        publish_again()
    state.use(settings)
    state.parts = parts
    backend.use(mine)
    torch.set_num_threads(settings.threads)
    if story.steps:
        LOG.info("executed %d steps of the journal again, to step %d", len(story.steps), state.step)
