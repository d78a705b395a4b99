"""The gate lets so many unanswered requests through, and gives up on those that nobody answers."""

from __future__ import annotations

import pytest

from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Recommendation, Status
from schemas.topics import RECOMMENDATIONS, SHADOW_RECOMMENDATIONS, Topic, id_key
from stream.replay.gate import UnansweredGate

pytestmark = pytest.mark.broker


class AnswersLater:
    """Not asked to stop; answers a request the third time that it is asked."""

    def __init__(self, kafka: KafkaSettings, request_id: int) -> None:
        self.asked = 0
        self._writer = RecordWriter(kafka)
        self._request_id = request_id

    def is_set(self) -> bool:
        self.asked += 1
        if self.asked == 3:
            answer(self._writer, self._request_id)
        return False


class Never:
    def is_set(self) -> bool:
        return False


def answer(writer: RecordWriter, request_id: int, topic: Topic = RECOMMENDATIONS) -> None:
    record = Recommendation(
        request_id=request_id,
        user_id=1,
        status=Status.ANSWERED,
        session=(),
        session_log_prob=0.0,
        ranked=(),
        model_version=1,
        catalogue_offset=0,
        history_length=0,
        time_ms=1_650_000_000_000,
        produced_ms=1_650_000_000_000,
        latency_ms=1.0,
    )
    writer.send(topic, id_key(1), record)
    writer.flush(60)


def test_waits_for_an_answer(kafka: KafkaSettings) -> None:
    gate = UnansweredGate(kafka, 2, answer_timeout_s=60)
    stop = AnswersLater(kafka, 11)
    gate.pass_request(10, stop)
    gate.pass_request(11, stop)
    assert stop.asked == 0
    gate.pass_request(12, stop)
    assert stop.asked >= 3
    assert gate.unanswered == 2
    assert gate.given_up == 0
    gate.close()


def test_answers_of_before_do_not_count(kafka: KafkaSettings) -> None:
    answer(RecordWriter(kafka), 10)
    gate = UnansweredGate(kafka, 1, answer_timeout_s=0.05)
    gate.pass_request(10, Never())
    gate.pass_request(11, Never())
    assert gate.given_up == 1
    gate.close()


def test_gives_up_on_what_nobody_answers(kafka: KafkaSettings, caplog: pytest.LogCaptureFixture) -> None:
    gate = UnansweredGate(kafka, 1, answer_timeout_s=0.05)
    for request_id in range(3):
        gate.pass_request(request_id, Never())
    assert (gate.given_up, gate.unanswered) == (2, 1)
    assert "is a worker running?" in caplog.text
    gate.close()


def test_without_a_limit_nothing_is_followed() -> None:
    gate = UnansweredGate(KafkaSettings(bootstrap_servers="127.0.0.1:1"), 0, answer_timeout_s=1)
    gate.pass_request(1, Never())
    assert gate.unanswered == 0
    gate.close()


def test_no_event_passes_before_the_answer_to_its_own_request(kafka: KafkaSettings) -> None:
    gate = UnansweredGate(kafka, 5, answer_timeout_s=60)
    stop = AnswersLater(kafka, 11)
    gate.pass_request(11, stop)
    gate.pass_request(12, stop)
    gate.pass_event(10, stop)  # of a request that was never asked here
    assert stop.asked == 0
    gate.pass_event(11, stop)
    assert stop.asked >= 3
    assert gate.unanswered == 1
    gate.close()


def test_waits_for_the_shadow_as_well_where_asked(kafka: KafkaSettings) -> None:
    gate = UnansweredGate(kafka, 1, answer_timeout_s=60, topics=(RECOMMENDATIONS, SHADOW_RECOMMENDATIONS))
    stop = AnswersLater(kafka, 11)
    gate.pass_request(11, stop)
    answer(RecordWriter(kafka), 11, SHADOW_RECOMMENDATIONS)
    gate.pass_request(12, stop)
    assert stop.asked >= 3
    assert gate.unanswered == 1
    gate.close()
