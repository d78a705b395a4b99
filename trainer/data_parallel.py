"""The models of one state over all ranks: the recommender by DDP or FSDP2, the small reward model by DDP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from onerec.model.onerec import OneRec
from onerec.model.reward import RewardModel
from trainer.messages import Gather
from trainer.ranks import Ranks
from trainer.replicated import Loss, Replicated
from trainer.shared_trie import SharedTrie

if TYPE_CHECKING:
    from trainer.sharded import ShardedOneRec


class DataParallel:
    """Where a state's models are on all ranks, and how their gradients are added up."""

    def __init__(self, ranks: Ranks, onerec: OneRec, reward: RewardModel) -> None:
        """Moves the models to the rank's device; with fsdp the recommender's parameters become shards in place."""
        self.ranks = ranks
        onerec.to(ranks.device)
        reward.to(ranks.device)
        self._of: dict[nn.Module, Replicated[Any] | ShardedOneRec] = {
            onerec: _onerec(onerec, ranks),
            reward: Replicated(reward),
        }
        self._onerec = self._of[onerec]
        self.trie = SharedTrie(onerec.config.codes, onerec.config.levels, ranks.device)

    def backward(self, model: nn.Module, losses: Sequence[Loss[Any]]) -> None:
        """Gradients of one of the models: of the sum of all ranks' losses, of which these are ours."""
        self._of[model].backward(losses)

    def placed(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole weights of one of the models, or its moments, as this rank takes them. All ranks have the same."""
        placed = self._of[model].placed(dict(tensors))
        return {key: tensor.to(self.ranks.device) for key, tensor in placed.items()}

    def whole(self, tensors: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
        """What the state's `method` returns, on CPU; where it is sharded, the other ranks are asked to gather it too.

        Raises RankLostError where a rank is gone.
        """
        if self.ranks.sharding == "fsdp" and self.ranks.rank == 0:
            self.ranks.tell_all(Gather(method))
        with self.ranks.watched():
            return {name: self.plain(tensor).cpu() for name, tensor in tensors.items()}

    def plain(self, tensor: Tensor) -> Tensor:
        """The tensor whole, on every rank, without its history."""
        return self._onerec.whole(tensor)


def _onerec(onerec: OneRec, ranks: Ranks) -> Replicated[OneRec] | ShardedOneRec:
    if ranks.sharding == "ddp":
        return Replicated(onerec)
    from trainer.sharded import ShardedOneRec  # noqa: PLC0415 - takes seconds, and DDP does without

    return ShardedOneRec(onerec, ranks)
