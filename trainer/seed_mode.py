"""How the models are while the seed trains, and how they are left afterwards: on every rank alike."""

from __future__ import annotations

from torch import nn

from onerec.model.reward import OBJECTIVES, RewardModel
from trainer.messages import Seeding
from trainer.state import TrainState


class SeedMode:
    """Products in the seed's dtype, and the seed's dropout: none usually, it sees its samples about once."""

    def __init__(self, state: TrainState) -> None:
        """Begins on all ranks that the state is on. Raises RankLostError where one is gone."""
        _tell(state, Seeding(begins=True))
        self._state = state
        self._dropout = {module: module.p for module in state.onerec.modules() if isinstance(module, nn.Dropout)}
        for module in self._dropout:
            module.p = state.settings.seed.dropout
        state.onerec.bf16 = state.config.bf16_seed

    def end(self) -> None:
        """Back to the stream's ways."""
        self._state.onerec.bf16 = self._state.config.bf16
        for module, probability in self._dropout.items():
            module.p = probability


def leave_seed(state: TrainState) -> None:
    """Make the seed ready for the stream, on all ranks. Raises RankLostError where one is gone."""
    _tell(state, Seeding(begins=False))
    _start_untaught_towers(state.reward)
    state.restart_optimizers()


def _start_untaught_towers(reward: RewardModel) -> None:
    """Histories tell neither watch time nor follows: their towers start as what is nearest, long views and likes.

    A tower that has learned nothing is noise, and the sampler, which standardises objectives, would count it in
    full. The first real sessions correct the level.
    """
    towers = dict(zip(OBJECTIVES, reward.towers, strict=True))
    for untaught, nearest in (("swt", "vtr"), ("wtr", "ltr")):
        towers[untaught].load_state_dict(towers[nearest].state_dict())


def _tell(state: TrainState, message: Seeding) -> None:
    if state.parallel is not None and state.parallel.ranks.rank == 0:
        state.parallel.ranks.tell_all(message)
