"""What a delivery report is worth: librdkafka may report a record as delivered that no broker has.

A broker that does not know yet that it leads a partition refuses a producer's first batch. By the time the next one,
which was already on its way, reaches it, it may know: having no record of this producer, it takes any sequence number
(KAFKA-15591, KAFKA-14312). librdkafka concludes that the first batch must be there, too, and never sends it again, nor
does a transaction help. Its report then has no error, but no offset either, which a broker that has a record tells.
"""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Message


def failure(error: KafkaError | None, message: Message) -> KafkaError | None:
    """Why the record of a delivery report may not be on the broker; None where a broker has told its offset.

    Of a producer with `acks` other than 0.
    """
    if error is not None or message.offset() is not None:
        return error
    return KafkaError(
        KafkaError._INCONSISTENT,
        f"a later record of partition {message.partition()} was taken, this one was not confirmed and may be lost; "
        "what was not confirmed has to be sent again (KAFKA-15591)",
    )


class Deliveries:
    """Takes the delivery reports of a transaction: librdkafka would commit one of which a record is missing.

    That of the first record of each partition is enough: a leader that has taken it refuses any that do not follow.
    Where a report has an error librdkafka refuses to commit by itself, and knows the reason better.
    """

    def __init__(self) -> None:
        self._failure: KafkaError | None = None

    def __call__(self, told: KafkaError | None, message: Message) -> None:
        """To be given as `on_delivery`."""
        if told is None and self._failure is None:
            self._failure = failure(told, message)

    def check(self) -> None:
        """Raise KafkaException where one of the records may not be on the broker: call it between flush and commit."""
        if self._failure is not None:
            raise KafkaException(self._failure)
