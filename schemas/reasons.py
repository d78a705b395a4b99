"""Why a reader refuses a record: the values of `DeadLetter.reason`, each with what to do about it."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Stable words: dashboards and alerts count by them."""

    UNDECODABLE = "undecodable"
    UNKNOWN_SCHEMA = "unknown_schema"
    OUT_OF_BOUNDS = "out_of_bounds"
    UNKNOWN_ITEM = "unknown_item"
    WRONG_WIDTH = "wrong_width"
    NON_FINITE = "non_finite"
    FUTURE = "future"
    LATE = "late"
    ORPHAN = "orphan"
    DUPLICATE_CODES = "duplicate_codes"
    STALE_CODEBOOK = "stale_codebook"
    PROCESSING_FAILED = "processing_failed"
    REPLAYED = "replayed"


REMEDIES: dict[Reason, str] = {
    Reason.UNDECODABLE: "The bytes are no Avro record of this topic: mend the producer.",
    Reason.UNKNOWN_SCHEMA: "The writer's schema is not known here: deploy readers before writers, or register it.",
    Reason.OUT_OF_BOUNDS: "A field is outside its documented range: mend the producer.",
    Reason.UNKNOWN_ITEM: "The item was never published on topic items: publish it, then replay the dead letter.",
    Reason.WRONG_WIDTH: "The embedding's width differs from the codebook's: publish it with the right width.",
    Reason.NON_FINITE: "A number is NaN or infinite: mend the producer.",
    Reason.FUTURE: "The event time lies in the future: set the producer's clock.",
    Reason.LATE: "It came after its window had closed: a wider feedback window would have taken it.",
    Reason.ORPHAN: "No impression came for this action within the feedback window: publish impressions first.",
    Reason.DUPLICATE_CODES: "Two items claim one semantic id: run a single tokenizer a catalogue.",
    Reason.STALE_CODEBOOK: "The codes are of another codebook version: let the tokenizer publish the catalogue again.",
    Reason.PROCESSING_FAILED: "The reader failed on it: the detail holds the error; report it, then replay.",
    Reason.REPLAYED: "No refusal: it marks that the letter named in its header was replayed.",
}
