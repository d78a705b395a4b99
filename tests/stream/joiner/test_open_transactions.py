"""While much is to be read, a joiner joins on until the broker has what its open transaction wrote."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from stream.joiner import service
from stream.joiner.items import AnyItem
from stream.joiner.service import Failures, Joiner
from stream.joiner.transaction import TransactionError
from tests.stream.joiner.system import System, UntilRead

BATCH = 3


@pytest.fixture
def pressed(system: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> Callable[..., System]:
    """Systems whose joiners see that there is more to read whenever they get a batch of the bus."""
    monkeypatch.setattr(service, "BATCH", BATCH)
    return lambda **arguments: system(batch=BATCH, **arguments)


def test_it_reads_between_the_records_of_a_transaction_and_its_commit(pressed: Callable[..., System]) -> None:
    calm = pressed()
    calm.live()

    steps = [step for step in calm.bus.steps if step in ("begin", "read", "commit")]
    assert ("begin", "read", "commit") in zip(steps, steps[1:], steps[2:], strict=False)
    assert steps.count("begin") == steps.count("commit") > 5
    assert calm.is_committed()


def test_a_crash_between_any_two_steps_changes_nothing(
    system: Callable[..., System], pressed: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unpressed:
        unpressed.setattr(service, "BATCH", 1000)
        calm = system(batch=BATCH)
        calm.live()
    wanted = calm.outcome()
    whole = pressed()
    whole.live()
    assert whole.outcome() == wanted

    for calls, step in enumerate(whole.bus.steps):
        crashed = pressed()
        crashed.live_through([calls, 11], lose_memory=calls % 2 > 0)
        assert crashed.outcome() == wanted, f"died at step {calls}: {step}"


def test_partitions_that_are_lost_meanwhile_are_not_committed(pressed: Callable[..., System]) -> None:
    calm = pressed()
    calm.live()

    robbed = pressed()
    kafka = robbed.settings.kafka
    with robbed.bus.life(None), closing(Joiner(robbed.settings, robbed.wiring, AnyItem(), Failures(kafka, "0"))) as one:
        while not one._transactions.is_open:
            one.turn()
        one._assignment.consumer.lose_place()  # type: ignore[attr-defined]
        committed = dict(robbed.bus.offsets)
        with pytest.raises(TransactionError, match="partitions were lost"):
            one.run(UntilRead(robbed.bus, robbed.wiring))  # type: ignore[arg-type]
        assert robbed.bus.offsets == committed
    robbed.live()

    assert robbed.outcome() == calm.outcome()
