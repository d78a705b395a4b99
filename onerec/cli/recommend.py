"""`onerec recommend USER`: asks the running worker through Kafka and prints what it answers."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onerec.cli.options import Config, Json, fail, read_settings
from onerec.errors import DependencyMissingError, ExitCode, OneRecError
from schemas.records import Recommendation, RecommendedItem, Request, Status

if TYPE_CHECKING:
    from onerec.settings import KafkaSettings

POLL_S = 0.05
CATALOGUE_S = 30.0
REQUEST_ID_BITS = 63

Tags = Mapping[int, tuple[str, ...]]


def recommend(
    user: Annotated[int, typer.Argument(help="User id; one that nobody has seen gets an answer too.", min=0)],
    *,
    items: Annotated[int, typer.Option(help="How many next items to rank.", min=1)] = 10,
    tags: Annotated[list[str] | None, typer.Option(help="Only items with one of these tags; repeat it.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.1)] = 10.0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Ask for recommendations and print them with tags, log-probabilities and the model's version."""
    settings = read_settings(config)
    now_ms = time.time_ns() // 1_000_000
    request = Request(
        request_id=secrets.randbits(REQUEST_ID_BITS),
        user_id=user,
        time_ms=now_ms,
        items=items,
        deadline_ms=int(timeout * 1000),
        tags=tuple(tags or ()),
        produced_ms=now_ms,
    )
    from onerec.kafka.access import require_rights  # noqa: PLC0415 - `onerec --help` shall not wait for it

    try:
        require_rights(settings, "client")
        answer = ask(settings.kafka, request, timeout)
        found = tags_of(settings.kafka, {item.item_id for item in answer.session + answer.ranked})
    except OneRecError as error:
        raise fail(error) from error
    print_json(answer, found) if as_json else print_table(answer, found)
    if answer.status is not Status.ANSWERED:
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


def ask(kafka: KafkaSettings, request: Request, timeout_s: float) -> Recommendation:
    """Send one request and wait for its answer.

    Raises DependencyMissingError for no broker, no topics or no answer in time.
    """
    from confluent_kafka import TopicPartition  # noqa: PLC0415 - `onerec --help` shall not wait for it

    from onerec.kafka import admin, clients  # noqa: PLC0415
    from onerec.kafka.dead_letters import PassedOver  # noqa: PLC0415
    from onerec.kafka.reader import RecordReader  # noqa: PLC0415
    from onerec.kafka.writer import RecordWriter  # noqa: PLC0415
    from schemas.topics import RECOMMENDATIONS, REQUESTS, id_key  # noqa: PLC0415

    admin.wait_for_broker(kafka, timeout_s)
    ends = admin.end_offsets(kafka, RECOMMENDATIONS)
    consumer = clients.consumer(kafka, fetch_wait_max_ms=10)
    try:
        name = clients.topic_name(kafka, RECOMMENDATIONS)
        consumer.assign([TopicPartition(name, partition, end) for partition, end in ends.items()])
        reader = RecordReader(consumer, [RECOMMENDATIONS], kafka, refused=PassedOver(kafka, "recommend"))
        writer = RecordWriter(kafka, linger_ms=0)
        writer.send(REQUESTS, id_key(request.user_id), request, timestamp_ms=request.time_ms)
        writer.flush(timeout_s)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            for received in reader.read(1000, POLL_S):
                if received.record.request_id == request.request_id:
                    answer: Recommendation = received.record
                    return answer
    finally:
        consumer.close()
    raise DependencyMissingError(
        f"No worker has answered within {timeout_s:g} s.",
        "Start one (`onerec up`, or `onerec demo`), and see its log: it answers once it is ready.",
    )


def tags_of(kafka: KafkaSettings, item_ids: Collection[int]) -> Tags:
    """Tags of these items, from topic item-tokens."""
    from onerec.kafka.dead_letters import PassedOver  # noqa: PLC0415
    from onerec.kafka.follow import TopicFollower  # noqa: PLC0415
    from onerec.kafka.reader import Received  # noqa: PLC0415
    from schemas.topics import ITEM_TOKENS  # noqa: PLC0415

    found: dict[int, tuple[str, ...]] = {}

    def note(received: Received) -> None:
        if received.record.item_id in item_ids:
            found[received.record.item_id] = received.record.tags

    if item_ids:
        refused = PassedOver(kafka, "recommend")
        follower = TopicFollower(kafka, ITEM_TOKENS, note, service="recommend", refused=refused)
        try:
            follower.catch_up(CATALOGUE_S)
        finally:
            follower.close()
    return found


def print_json(answer: Recommendation, tags: Tags) -> None:
    """The answer's fields as JSON, each item with its tags."""
    fields: dict[str, Any] = dataclasses.asdict(answer)
    for name in ("session", "ranked"):
        fields[name] = [item | {"tags": list(tags.get(item["item_id"], ()))} for item in fields[name]]
    typer.echo(json.dumps(fields, indent=2))


def print_table(answer: Recommendation, tags: Tags) -> None:
    """The answer for a person."""
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    if answer.status is not Status.ANSWERED:
        typer.secho(f"{answer.status.value}: {answer.reason}", err=True, fg=typer.colors.RED)
        return
    history = f"a history of {answer.history_length}" if answer.history_length else "no history yet"
    console.print(
        f"user {answer.user_id} ({history}), model version [bold]{answer.model_version}[/], "
        f"{answer.latency_ms:.0f} ms from request to answer"
    )
    if answer.session:
        console.print(_table(f"Session, log-probability {answer.session_log_prob:.2f}", answer.session, tags))
    console.print(_table("Most probable next items", answer.ranked, tags))


def _table(title: str, items: tuple[RecommendedItem, ...], tags: Tags) -> Any:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    for heading in ("", "item", "log-prob."):
        table.add_column(heading, justify="right")
    table.add_column("tags")
    for place, item in enumerate(items, 1):
        table.add_row(str(place), str(item.item_id), f"{item.log_prob:.3f}", ", ".join(tags.get(item.item_id, ())))
    return table
