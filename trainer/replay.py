"""Resuming: from the checkpoint, the journal's later steps are executed again over the same records.

What results is bit for bit the state that the journal describes, so the killed trainer and its successor are one
and the same to everybody else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from onerec.errors import CheckFailedError
from trainer.environment import settings_of
from trainer.journal import Story
from trainer.publish import Publisher
from trainer.state import TrainState
from trainer.step import apply_step
from trainer.supply import Supply

LOG = logging.getLogger(__name__)


def execute_again(
    state: TrainState, story: Story, supply: Supply, publisher: Publisher, environment: Mapping[str, str]
) -> None:
    """Bring `state` to the journal's last step, and announce a version that a crash kept from being announced.

    Each step is executed with the settings of the trainer that made it: `environment` is the checkpoint's, later
    starts in the journal carry their own. Raises CheckFailedError where the log is not the journal's.
    """
    settings = state.settings
    publisher.continue_from(state)
    _publish_again(state, story, supply, publisher)
    for entry, of_step in zip(story.steps, story.environments, strict=True):
        state.use(settings_of(of_step or environment))
        result = apply_step(state, supply.again(entry.ranges).step_input)
        if (result.seed, result.ranges) != (entry.seed, entry.ranges):
            raise CheckFailedError(
                f"Step {entry.step} of the journal consumed something else than now.",
                "Restore the topics and settings of that run, or move the checkpoints away to train a new seed.",
            )
        publisher.learned.add(result)
        _publish_again(state, story, supply, publisher)
    state.use(settings)
    if story.steps:
        LOG.info("executed %d steps of the journal again, to step %d", len(story.steps), state.step)


def _publish_again(state: TrainState, story: Story, supply: Supply, publisher: Publisher) -> None:
    entry = story.publishes.get(state.step)
    if entry is not None and (entry.version or 0) > state.version:
        publisher.again(entry, state, supply.catalogue.codebook_version)
