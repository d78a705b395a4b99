"""FSDP2: each rank has a shard of every weight and moment; a block's weights are gathered while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from onerec.model.onerec import Encoder, OneRec
from trainer.ranks import Ranks
from trainer.replicated import Loss, LossOf


class ShardedOneRec:
    """The model with its parameters sharded in place."""

    def __init__(self, model: OneRec, ranks: Ranks) -> None:
        """Blocks are gathered one by one, what is left of the model for the whole of a pass."""
        mesh = init_device_mesh(ranks.device.type, (ranks.world,))
        self._model, self._root = model, LossOf(model)
        for unit in (*_units(model), self._root):
            fully_shard(unit, mesh=mesh)
        for module in self._root.modules():
            if isinstance(module, FSDPModule):  # a sum, not a mean: losses come scaled
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def backward(self, losses: Sequence[Loss[OneRec]]) -> None:
        """Gradients of the sum of all ranks' losses, of which these are ours; every rank has as many."""
        for loss in losses:
            self._root(loss).backward()

    def placed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights, or moments (`name/slot`), of which every rank has the whole ones, as shards."""
        like = self._model.state_dict()
        return {key: _shard(tensor, like[key.split("/")[0]]) for key, tensor in tensors.items()}

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor, gathered on every rank; all have to ask for it."""
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        gathered: Tensor = tensor.full_tensor()
        return gathered.detach()


def _shard(whole: Tensor, like: Tensor) -> Tensor:
    if isinstance(like, DTensor) and whole.dim():  # the optimizer's count of steps is a number
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return whole


def _units(model: OneRec) -> list[nn.Module | list[nn.Module]]:
    """Blocks. A decoder block runs in two calls, so what it is made of is one unit instead of it.

    That is what runs once in them, so without its dropout.
    """
    decoder: list[nn.Module | list[nn.Module]] = [
        [part for part in block.children() if next(part.parameters(), None) is not None]
        for block in model.decoder.stack()
    ]
    encoder = model.encoder.stack() if isinstance(model.encoder, Encoder) else []
    return [*encoder, *decoder]
