"""The request queue and the offsets that may be committed: pure bookkeeping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference.worker.offsets import Offsets
from inference.worker.queue import RequestQueue
from inference.worker.room import Room
from schemas.records import Request


def request(number: int, deadline_ms: int = 0) -> Request:
    return Request(request_id=number, user_id=1, time_ms=0, deadline_ms=deadline_ms, produced_ms=0)


def queue_of(count: int, *, deadline_ms: int = 1000) -> RequestQueue:
    queue = RequestQueue(max_batch=4, deadline_ms=deadline_ms, max_wait_ms=10)
    for number in range(count):
        queue.add(request(number), partition=number % 2, offset=number, now_ms=0, age_ms=0)
    return queue


def test_a_batch_is_due_when_full_or_when_the_first_has_waited() -> None:
    assert queue_of(0).wait_ms(0) is None
    assert queue_of(1).wait_ms(0) == 10
    assert queue_of(1).wait_ms(8) == 2
    assert queue_of(1).wait_ms(99) == 0
    assert queue_of(4).wait_ms(0) == 0


def test_batches_go_in_order_and_only_of_restored_partitions() -> None:
    queue = queue_of(10)
    assert [waiting.offset for waiting in queue.take({1})] == [1, 3, 5, 7]
    assert [waiting.offset for waiting in queue.take({0, 1})] == [0, 2, 4, 6]
    queue.forget({0})
    assert [waiting.offset for waiting in queue.take({0, 1})] == [9]


def test_what_is_past_its_deadline_leaves() -> None:
    queue = queue_of(2)
    queue.add(request(7, deadline_ms=5000), 0, 7, now_ms=0, age_ms=0)
    assert queue.shed(999) == []
    late = queue.shed(1000)
    assert [waiting.offset for waiting, _ in late] == [0, 1]
    assert "before its deadline" in late[0][1]
    assert len(queue) == 1


def test_what_cannot_be_reached_in_time_leaves_at_once_but_a_batch_always_stays() -> None:
    queue = queue_of(20)
    queue.served(-400, 0)  # a batch of 4 takes 400 ms: two batches fit into 1000 ms
    late = queue.shed(1)
    assert [waiting.offset for waiting, _ in late] == list(range(8, 20))
    assert "8 requests are ahead of it" in late[0][1]
    for _ in range(50):
        queue.served(-60_000, 0)
    queue.shed(2)
    assert len(queue) == 4, "the estimate is renewed however bad it was"


def test_the_more_batches_differ_the_more_time_is_kept_free() -> None:
    steady, uneven = queue_of(20), queue_of(20)
    for turn in range(50):
        steady.served(-250, 0)
        uneven.served(-50 if turn % 2 else -450, 0)
    assert len(steady.shed(1)) == 20 - 12, "three batches fit into 1000 ms"
    assert len(uneven.shed(1)) == 20 - 8, "three fit on average, and then every other batch would end too late"


def test_what_the_queue_carries_is_counted() -> None:
    queue = queue_of(0)
    for number in range(6):
        asked = Request(request_id=number, user_id=1, time_ms=0, produced_ms=0, exclude_items=b"x" * 8 * number)
        queue.add(asked, partition=number % 2, offset=number, now_ms=0, age_ms=0)
    assert queue.size_bytes == 8 * 15
    queue.take({0})
    assert queue.size_bytes == 8 * 9
    queue.forget({1})
    assert (len(queue), queue.size_bytes) == (0, 0)


def test_room_ends_at_a_limit_and_begins_at_half_of_it() -> None:
    room = Room(max_requests=10, max_bytes=1000)
    assert room.left(9, 999)
    assert not room.left(10, 0)
    assert not room.left(6, 0)
    assert room.left(5, 0)
    assert room.left(9, 0)
    assert not room.left(1, 1000)
    assert not room.left(1, 501)
    assert room.left(1, 500)


def test_a_client_with_a_fast_clock_does_not_wait_longer() -> None:
    queue = RequestQueue(max_batch=4, deadline_ms=1000, max_wait_ms=0)
    queue.add(request(1), 0, 1, now_ms=10_000, age_ms=-40_000)
    assert queue.oldest_age_ms(10_500) == 500
    assert len(queue.shed(11_000)) == 1


def test_time_on_the_way_counts() -> None:
    queue = RequestQueue(max_batch=4, deadline_ms=1000, max_wait_ms=0)
    queue.add(request(1), 0, 1, now_ms=10_000, age_ms=600)
    assert queue.oldest_age_ms(10_100) == 700
    assert queue.shed(10_399) == []
    assert len(queue.shed(10_400)) == 1


def test_what_the_batch_before_kept_from_being_read_waits_for_no_others() -> None:
    """A lone request that came meanwhile is due at once, and how long it waited so far is not put down to Kafka."""
    queue = RequestQueue(max_batch=4, deadline_ms=1000, max_wait_ms=10)
    queue.served(1000, 1050)
    queue.add(request(1), 0, 1, now_ms=1051, age_ms=30)
    assert queue.wait_ms(1051) == 0
    queue.add(request(2), 0, 2, now_ms=1051, age_ms=80)
    first, second = queue.take({0})
    assert (first.arrived_ms, first.age_ms, first.deadline_ms) == (1022, 1, 2021)
    assert (second.arrived_ms, second.age_ms, second.deadline_ms) == (1001, 30, 1971), "30 ms before the batch began"
    queue.add(request(3), 0, 3, now_ms=1051, age_ms=0.5)
    assert queue.wait_ms(1051) == 10, "it came after the batch"


def test_what_comes_to_an_idle_worker_waits_for_others_however_old_it_is() -> None:
    queue = RequestQueue(max_batch=4, deadline_ms=1000, max_wait_ms=10)
    queue.served(1000, 1050)
    queue.add(request(1), 0, 1, now_ms=1090, age_ms=60)
    assert queue.wait_ms(1090) == 10
    (waiting,) = queue.take({0})
    assert (waiting.arrived_ms, waiting.age_ms) == (1090, 60), "the broker had it, the worker was ready"


def test_offsets_move_up_to_the_first_request_in_flight() -> None:
    offsets = Offsets()
    for offset in (5, 6, 9):  # 7 and 8 were refused by the reader
        offsets.received(0, offset)
    offsets.received(1, 3)
    assert offsets.answered_up_to() == {0: 5, 1: 3}
    offsets.answered(0, 6)
    assert offsets.answered_up_to() == {0: 5, 1: 3}
    offsets.answered(0, 5)
    assert offsets.moved() == {0: 9, 1: 3}
    assert offsets.moved() == {}, "told once"
    offsets.answered(0, 9)
    assert offsets.moved() == {0: 10}
    assert offsets.in_flight() == 1
    offsets.forget([1])
    assert offsets.answered_up_to() == {0: 10}
    assert offsets.in_flight() == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "wait", "take", "take one partition", "lose"]), st.integers(0, 400)), max_size=40
)


@given(STEPS)
def test_every_request_leaves_exactly_once_in_its_order(steps: list[tuple[str, int]]) -> None:
    """Answered, told why not, or gone to another worker with its partition: nothing is dropped or told twice."""
    queue, offsets = RequestQueue(max_batch=3, deadline_ms=200, max_wait_ms=5), Offsets()
    now_ms, asked = 0.0, 0
    waiting: list[int] = []
    for step, amount in steps:
        partitions = {amount % 2}
        if step == "add":
            queue.add(request(asked, deadline_ms=amount), asked % 2, asked, now_ms=now_ms, age_ms=amount / 4)
            offsets.received(asked % 2, asked)
            waiting.append(asked)
            asked += 1
        elif step == "wait":
            now_ms += amount
            queue.served(now_ms - amount, now_ms)
        elif step == "lose":
            queue.forget(partitions)
            offsets.forget(partitions)
            waiting = [number for number in waiting if number % 2 not in partitions]
        else:
            may = {0, 1} if step == "take" else partitions
            batch = [one.offset for one in queue.take(may)]
            assert batch == [number for number in waiting if number % 2 in may][:3]
            waiting = leave(waiting, batch, offsets)
        told = queue.shed(now_ms)
        assert all(why for _, why in told)
        waiting = leave(waiting, [one.offset for one, _ in told], offsets)
        assert len(queue) == len(waiting) == offsets.in_flight()
        for partition, at in offsets.answered_up_to().items():
            assert all(number >= at for number in waiting if number % 2 == partition), "none is committed unanswered"


def leave(waiting: list[int], left: list[int], offsets: Offsets) -> list[int]:
    """These have their answer; the ones that still wait."""
    assert set(left) <= set(waiting)
    assert len(set(left)) == len(left)
    for number in left:
        offsets.answered(number % 2, number)
    return [number for number in waiting if number not in left]
