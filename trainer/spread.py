"""A state on all ranks: rank 0 spreads it, the others take it and do what rank 0 says until it says no more."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from onerec.device import device_of
from onerec.settings import TrainerSettings
from trainer import kernels
from trainer.environment import make_deterministic
from trainer.lesson import Lesson, learn
from trainer.messages import Adopt, Gather, Seeding
from trainer.ranks import Ranks
from trainer.seed_mode import SeedMode, leave_seed
from trainer.state import TrainState, adamw

LOG = logging.getLogger(__name__)


def spread(state: TrainState, ranks: Ranks | None, settings: TrainerSettings) -> None:
    """Put the state's models and optimizers on all ranks, that make its steps together from here on.

    Without ranks, on the device that this process's `settings` name. Raises RankLostError where a rank is gone.
    """
    if ranks is None:
        state.move(device_of(settings.device, "trainer.device"))
        return
    tensors = state.weights() | state.moments()
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    ranks.tell_all(Adopt(state.config, state.settings, ranks.sharding, shapes))
    for tensor in tensors.values():
        ranks.broadcast(tensor.detach().contiguous())
    _put(state, ranks, tensors)
    LOG.info("%d ranks on %s, %s", ranks.world, ranks.backend, ranks.sharding)


def follow(ranks: Ranks) -> None:
    """The life of a rank other than the first. Raises RankLostError where another one is gone."""
    state: TrainState | None = None
    mode: SeedMode | None = None
    while (message := ranks.listen()) is not None:
        match message:
            case Adopt():
                state = _adopted(message, ranks)
            case Lesson() if state is not None:
                _take_part(state, message)
            case Seeding(begins=True) if state is not None:
                mode = SeedMode(state)
            case Seeding() if state is not None:
                if mode is not None:
                    mode.end()
                leave_seed(state)
            case Gather() if state is not None:
                getattr(state, message.method)()
            case _:
                raise TypeError(f"rank 0 said {message!r}")


def _adopted(message: Adopt, ranks: Ranks) -> TrainState:
    make_deterministic(message.settings.threads)
    state = TrainState.new(message.config, message.settings)
    tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in message.shapes.items()}
    for tensor in tensors.values():
        ranks.broadcast(tensor)
    _put(state, dataclasses.replace(ranks, sharding=message.sharding), tensors)
    return state


def _take_part(state: TrainState, lesson: Lesson) -> None:
    if lesson.settings != state.settings:
        state.use(lesson.settings)
        torch.set_num_threads(lesson.settings.threads)
    kernels.use_those_of_rank_0(lesson.kernels)
    assert state.parallel is not None
    learn(state, lesson, state.parallel.trie.take(lesson.codes))


def _put(state: TrainState, ranks: Ranks, tensors: Mapping[str, Tensor]) -> None:
    """Keep what is this rank's of the state; optimizers anew, since sharded parameters are other ones."""
    from trainer.data_parallel import DataParallel  # noqa: PLC0415 - loads what one process does without

    state.parallel = DataParallel(ranks, state.onerec, state.reward)
    state.parts = ranks.world
    state.onerec_optimizer = adamw(state.onerec, state.settings.learning_rate, state.settings)
    state.reward_optimizer = adamw(state.reward, state.settings.reward_learning_rate, state.settings)
    state.load_models(tensors)
