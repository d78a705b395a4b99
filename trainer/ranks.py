"""The processes that torchrun started: one process group, and who is who in it.

Rank 0 is the trainer: it alone has Kafka, the journal, the checkpoints and the announcements. The other ranks do what
it tells them over a group of its own on gloo that has no deadline, since the stream may be silent for hours; a rank
that dies closes its connections, which the others notice at once. Messages are pickled: ranks trust one another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from onerec.errors import DependencyMissingError, SettingsError
from onerec.settings import Settings
from trainer.rendezvous import own_store

FSDP_PRESETS = frozenset({"1b"})
"""Presets whose weights and moments do not belong whole on every device."""
NO_DEADLINE = timedelta(days=365)
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_GROUP_ERRORS = ("gloo", "nccl", "connection", "process group", "timed out")


class RankLostError(DependencyMissingError):
    """A process of the group is gone, or does not answer."""

    def __init__(self, rank: int, detail: str) -> None:
        super().__init__(
            f"Rank {rank} of the trainer has lost another rank: {detail}.",
            "torchrun starts all ranks again (--max-restarts); they go on where the journal ends. The first rank "
            "that failed says why.",
        )


@dataclass(frozen=True, slots=True)
class Ranks:
    """The process group, as one of its processes sees it."""

    rank: int
    world: int
    device: torch.device
    backend: str
    """gloo or nccl: what gradients travel over."""
    sharding: str
    """ddp or fsdp."""
    control: Any
    """A gloo group for messages."""

    def tell(self, messages: Sequence[Any]) -> None:
        """Rank 0 gives each rank its message, the first one to itself. Raises RankLostError."""
        with self.watched():
            dist.scatter_object_list([None], list(messages), src=0, group=self.control)

    def tell_all(self, message: Any) -> None:
        """Rank 0 gives all the same message; None ends them. Raises RankLostError."""
        self.tell([message] * self.world)

    def listen(self) -> Any:
        """The next message of rank 0, however long it takes. Raises RankLostError."""
        received: list[Any] = [None]
        with self.watched():
            dist.scatter_object_list(received, None, src=0, group=self.control)
        return received[0]

    def broadcast(self, tensor: Tensor) -> None:
        """Rank 0's CPU tensor to all. Raises RankLostError."""
        with self.watched():
            dist.broadcast(tensor, src=0, group=self.control)

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, on CPU. Raises RankLostError."""
        total = tensor.detach().cpu().clone()
        with self.watched():
            dist.all_reduce(total, group=self.control)
        return total

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what a collective raises when a peer is gone into RankLostError."""
        with _watched(self.rank):
            yield


@contextmanager
def _watched(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo has no class of its own for it
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in _GROUP_ERRORS):
            raise
        raise RankLostError(rank, told.rstrip(".")) from error


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return bool(dist.is_torchelastic_launched())


def is_first() -> bool:
    """Whether this process is the trainer, alone or as rank 0."""
    return not under_torchrun() or os.environ["RANK"] == "0"


@contextmanager
def joined(settings: Settings) -> Iterator[Ranks | None]:
    """The group of the processes that torchrun started, until the block ends; None where it did not.

    Where rank 0's block ends well, the other ranks are told to end. Raises SettingsError where settings, devices and
    the number of ranks do not go together, and RankLostError.
    """
    if not under_torchrun():
        yield None
        return
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    backend = _backend(settings)
    if settings.trainer.batch < world:
        raise SettingsError(
            f"trainer.batch is {settings.trainer.batch}, fewer sessions than the {world} ranks.",
            "Raise trainer.batch or start fewer ranks.",
        )
    device = _device(backend, local)
    timeout = timedelta(seconds=settings.trainer.ranks.timeout_s)
    with _watched(rank):
        store = own_store(rank, world, timeout)
        place: dict[str, Any] = {} if store is None else {"store": store, "rank": rank, "world_size": world}
        dist.init_process_group("cpu:gloo,cuda:nccl" if backend == "nccl" else "gloo", timeout=timeout, **place)
        control = dist.new_group(backend="gloo", timeout=NO_DEADLINE)
    ranks = Ranks(rank, world, device, backend, _sharding(settings), control)
    yield ranks
    if rank == 0:
        ranks.tell_all(None)
    dist.destroy_process_group()  # not after an error: it could wait for a peer that is gone


def _backend(settings: Settings) -> str:
    wanted = settings.trainer.ranks.backend
    there = torch.cuda.is_available() and dist.is_nccl_available()
    if wanted == "nccl" and not there:
        raise SettingsError("trainer.ranks.backend is nccl, but there is no CUDA device.", "Use auto or gloo.")
    return wanted if wanted != "auto" else "nccl" if there else "gloo"


def _device(backend: str, local: int) -> torch.device:
    if backend == "gloo":
        return torch.device("cpu")
    os.environ.setdefault(CUBLAS, ":4096:8")  # or matrix products do not repeat their bits
    count = torch.cuda.device_count()
    if local >= count:
        raise SettingsError(
            f"Local rank {local} has no CUDA device: there are {count}.", f"Start {count} ranks on this machine."
        )
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def _sharding(settings: Settings) -> str:
    wanted = settings.trainer.ranks.sharding
    return wanted if wanted != "auto" else "fsdp" if settings.model.preset in FSDP_PRESETS else "ddp"
