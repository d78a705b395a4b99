"""Where the ranks of one start find one another: a part of torchrun's store that no earlier start has written to.

Torchrun keeps its store when it starts ranks again, and the group's keys do not tell one start from another: a rank
would read the address of a dead one (https://github.com/pytorch/pytorch/issues/135712). So rank 0 opens a part of a
new name and answers each rank that asks for it there. Where nobody answers, the name is an earlier start's.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import PrefixStore, Store

CURRENT = "onerec/current"
ASK_AGAIN = timedelta(seconds=1)


def own_store(rank: int, world: int, timeout: timedelta) -> Store | None:
    """The store for this start's process group; None where torchrun makes a new one for each start.

    Raises RuntimeError where torchrun's store does not answer, or the other ranks do not within `timeout`.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(*where, world, is_master=False, timeout=timeout)
    return PrefixStore(meet(store, rank, world, timeout), store)


def meet(store: Store, rank: int, world: int, timeout: timedelta) -> str:
    """A name that only the ranks of this start have. Raises RuntimeError where they do not meet in time."""
    if rank == 0:
        return _open(store, world, timeout)
    deadline_s = time.monotonic() + timeout.total_seconds()
    mine = uuid.uuid4().hex
    while time.monotonic() < deadline_s:
        name: str = store.get(CURRENT).decode()
        store.set(f"{name}/asks/{rank}", mine)
        try:
            store.wait([f"{name}/answered/{mine}"], ASK_AGAIN)
        except DistStoreError:  # of an earlier start, whose rank 0 is gone, or a slow one
            continue
        return name
    raise DistStoreError(f"rank 0 did not answer within {timeout.total_seconds():g} s")


def _open(store: Store, world: int, timeout: timedelta) -> str:
    name = f"onerec/{uuid.uuid4().hex}"
    store.set(CURRENT, name)
    for rank in range(1, world):
        store.wait([f"{name}/asks/{rank}"], timeout)
        store.set(f"{name}/answered/{store.get(f'{name}/asks/{rank}').decode()}", "")
    return name
