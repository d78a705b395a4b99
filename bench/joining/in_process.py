"""Where each microsecond of the joiner goes, without a broker: `python -m bench.joining.in_process`.

The joiner bench's stream is fed as messages that a consumer would give, in runs as fetches come, and what the joiner
would produce is counted and thrown away; the local store is real. What is left out is librdkafka and the waiting for
the broker. `--profile FILE` writes what cProfile saw, which slows everything down by a factor.
"""

from __future__ import annotations

import cProfile
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import Message

from bench.joining.feed import events, record_of
from bench.joining.runs import PARTITIONS, RULES
from onerec.settings import JoinerSettings, KafkaSettings
from onerec.state.store import LocalStore
from schemas.codec import Codec
from schemas.topics import ACTIONS, IMPRESSIONS, id_key
from stream.joiner.garbage import PacedCollection
from stream.joiner.intake import Intake
from stream.joiner.items import AnyItem
from stream.joiner.partition import Partition
from stream.joiner.service import BATCH
from stream.joiner.wiring import names

RUN = 2500
"""Messages of one partition that come in a row: a fetch of 256 KiB holds a little more."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Clock:
    """Sums up the time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside belongs to this stage."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started_s


def messages(count: int, per_s: float) -> list[Message]:
    """The stream as a consumer gives it while it reads a backlog: by turns from each partition of each input."""
    wiring = names(KafkaSettings(), "cluster", ())
    codecs = {topic: Codec(topic) for topic in (IMPRESSIONS, ACTIONS)}
    parts: dict[tuple[int, int], list[Message]] = {}
    for event in events(count, per_s):
        source, topic = (0, IMPRESSIONS) if event.kind is None else (1, ACTIONS)
        part = parts.setdefault((event.user % PARTITIONS, source), [])
        part.append(
            Message(
                topic=wiring.inputs[source],
                partition=event.user % PARTITIONS,
                offset=len(part),
                key=id_key(event.user),
                value=codecs[topic].encode(record_of(event)),
                timestamp=(1, event.time_ms),
            )
        )
    runs = [(at, part) for part in sorted(parts) for at in range(0, len(parts[part]), RUN)]
    return [message for at, part in sorted(runs) for message in parts[part][at : at + RUN]]


def join(stream: Sequence[Message], settings: JoinerSettings, directory: Path) -> dict[str, Any]:
    """Join all of it; the rates and, by stage, microseconds an event, both of the second half."""
    wiring = names(KafkaSettings(), "cluster", ())
    intake = Intake(wiring, settings, AnyItem())
    partitions = {
        number: Partition(number, LocalStore(directory / str(number), "bench"), (0, 0), wiring, settings)
        for number in range(PARTITIONS)
    }
    clock, garbage, written, half = Clock(), PacedCollection(), {"records": 0, "bytes": 0}, 0
    uncommitted, due_s = 0, time.perf_counter() + settings.transaction_ms / 1000
    started_s = time.perf_counter()
    for at in range(0, len(stream), BATCH):
        if at >= len(stream) // 2 and half == 0:
            half, started_s = at, time.perf_counter()
            clock.seconds.clear()
            written = dict.fromkeys(written, 0)
        with clock.stage("decode and join"):
            uncommitted += intake.take(stream[at : at + BATCH], partitions)
        with clock.stage("what falls due"):
            for partition in partitions.values():
                partition.advance(time.monotonic())
        if uncommitted >= settings.transaction_events or time.perf_counter() >= due_s:
            _commit(partitions, clock, written)
            uncommitted, due_s = 0, time.perf_counter() + settings.transaction_ms / 1000
        with clock.stage("garbage"):
            garbage.turn(time.monotonic())
    _commit(partitions, clock, written)  # what is left; a short stream is joined before a transaction is due
    seconds = time.perf_counter() - started_s
    joined = len(stream) - half
    garbage.stop()
    return {
        "events_per_s": round(joined / seconds),
        "us_per_event": {name: round(1e6 * spent / joined, 3) for name, spent in clock.seconds.items()},
        "records_per_event": round(written["records"] / joined, 3),
        "bytes_per_event": round(written["bytes"] / joined, 1),
    }


def _commit(partitions: dict[int, Partition], clock: Clock, written: dict[str, int]) -> None:
    """What a transaction does, but for the broker."""
    with clock.stage("records to write"):
        works = [work for partition in partitions.values() if (work := partition.work()) is not None]
    for work in works:
        for records in (work.sessions, work.histories, work.changelog, work.dead_letters):
            written["records"] += len(records)
            written["bytes"] += sum(len(value or b"") for _, value, _ in records)
    with clock.stage("local store"):
        for work in works:
            work.store.write(work.local, {"changelog": 1, "histories": 1})
    with clock.stage("after the commit"):
        for work in works:
            partitions[work.partition].committed(work)


@app.command()
def main(
    count: Annotated[int, typer.Option("--events", min=10_000)] = 400_000,
    per_s: Annotated[float, typer.Option(help="Requests in a second of event time.")] = 100.0,
    compiled: Annotated[bool, typer.Option(help="By the compiled join, or by Python's.")] = True,
    profile: Annotated[Path | None, typer.Option(help="Where to write what cProfile saw.")] = None,
) -> None:
    """Join the stream and print the rate, the time of each stage and what was written."""
    stream = messages(count, per_s)
    profiler = cProfile.Profile() if profile else None
    with tempfile.TemporaryDirectory() as directory:
        if profiler:
            profiler.enable()
        found = join(stream, JoinerSettings.model_validate(RULES | {"compiled": compiled}), Path(directory))
        if profiler:
            profiler.disable()
            profiler.dump_stats(str(profile))
    typer.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    app(prog_name="python -m bench.joining.in_process")
