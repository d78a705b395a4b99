"""What does not fit stops the joiner with a sentence, on a bus in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.settings import KafkaSettings
from stream.joiner.service import GIVE_UP_AFTER, Failures
from stream.joiner.transaction import TransactionError
from tests.recovery.bus import Entry
from tests.stream.joiner.events import impression
from tests.stream.joiner.system import System


def begun(system: Callable[..., System]) -> System:
    new = system()
    new.live()
    return new


def test_a_group_that_was_reset_is_not_joined_from_the_beginning_again(system: Callable[..., System]) -> None:
    running = begun(system)
    running.bus.offsets.clear()

    with pytest.raises(CheckFailedError, match="committed None"):
        running.live()


def test_a_changelog_that_is_gone_is_noticed(system: Callable[..., System]) -> None:
    running = begun(system)
    running.bus.log((running.wiring.changelog, 0)).clear()

    with pytest.raises(CheckFailedError, match="joiner-changelog"):
        running.live()


def test_input_that_was_deleted_before_it_was_joined_is_noticed(system: Callable[..., System]) -> None:
    running = begun(system)
    running.bus.log((running.wiring.inputs[0], 0)).clear()

    with pytest.raises(CheckFailedError, match="Records were deleted before they were joined"):
        running.live()


def test_records_of_a_dead_transaction_beyond_the_committed_offsets_do_not_count(system: Callable[..., System]) -> None:
    running = begun(system)
    log = running.bus.log((running.wiring.changelog, 0))
    last = log[-2]
    assert last.headers is not None
    beyond = [("joined", (2**40).to_bytes(8, "little") * 2)]
    log.append(Entry(b"1", b"nonsense of a dead transaction", headers=beyond))

    running.publish(impression(1, 20_000))
    running.live()

    assert running.bus.offsets[running.wiring.inputs[0], 0] == len(running.bus.log((running.wiring.inputs[0], 0)))


def failed(code: int) -> TransactionError:
    return TransactionError(KafkaError(code))


def test_failures_in_a_row_end_in_a_sentence_and_success_forgives() -> None:
    failures = Failures(KafkaSettings(), "0")
    for _ in range(GIVE_UP_AFTER - 1):
        failures.add(failed(KafkaError._TIMED_OUT))
    failures.none()
    for _ in range(GIVE_UP_AFTER - 1):
        failures.add(failed(KafkaError._TIMED_OUT))

    with pytest.raises(DependencyMissingError, match="12 transactions in a row failed"):
        failures.add(failed(KafkaError._TIMED_OUT))


def test_pauses_grow_to_a_bound() -> None:
    failures = Failures(KafkaSettings(), "0")
    pauses = []
    for _ in range(8):
        failures.add(failed(KafkaError._TIMED_OUT))
        pauses.append(failures.pause_s())

    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.2, 5.0)


def test_being_fenced_twice_names_the_other_joiner_of_the_same_instance() -> None:
    failures = Failures(KafkaSettings(), "7")
    failures.add(failed(KafkaError._FENCED))

    with pytest.raises(CheckFailedError, match="Another joiner of instance '7'"):
        failures.add(failed(KafkaError._FENCED))


def test_a_denied_right_is_not_tried_again() -> None:
    with pytest.raises(DependencyMissingError, match="denies access"):
        Failures(KafkaSettings(), "0").add(failed(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED))
