"""`python -m tests.hostile`: a million hostile records and files through the real readers, and a table of the outcome.

Exits with 4 where a reader crashed or something was neither accepted nor refused with a reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onerec.errors import ExitCode
from onerec.kafka import admin
from onerec.settings import KafkaSettings
from tests import broker as brokers
from tests.hostile import files, joiner, reading, records
from tests.hostile.reading import Outcome, in_process_of_its_own

FILES = 5_000
ON_BUS = 50_000
ON_BROKER = 100_000


def outcomes(count: int, seed: int, *, with_broker: bool) -> Iterator[Outcome]:
    """`count` inputs of all kinds; a tenth through a joiner on a real broker where one is wanted."""
    share = min(1.0, count / 1_000_000)
    of_files, on_bus, on_broker = (round(number * share) for number in (FILES, ON_BUS, ON_BROKER))
    left = count - len(files.KINDS) * of_files - on_bus - (on_broker if with_broker else 0)
    large = {kind: max(1, round(left * portion)) for kind, portion in records.SHARES.items()}
    small = [kind for kind in records.KINDS if kind not in large]
    each, more = divmod(left - sum(large.values()), len(small))
    for number, kind in enumerate(records.KINDS):
        yield in_process_of_its_own(reading.read, kind, large.get(kind, each + (number < more)), seed)
    for kind in files.KINDS:
        yield in_process_of_its_own(files.read, kind, of_files, seed)
    yield in_process_of_its_own(joiner.on_bus, joiner.ON_BUS, on_bus, seed)
    if with_broker:
        yield through_a_broker(on_broker, seed)


def through_a_broker(count: int, seed: int) -> Outcome:
    """A broker of the tests' choice, topics of its own."""
    unique = uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as directory, brokers.running_broker(Path(directory)) as running:
        kafka = KafkaSettings(
            bootstrap_servers=running.bootstrap_servers, topic_prefix=f"t{unique}-", group_prefix=f"g{unique}-"
        )
        admin.create_topics(kafka)
        outcome = joiner.on_broker(kafka, Path(directory) / "joiner", count, seed)
        brokers.delete_topics(kafka)
        outcome.kind += f" ({running.kind})"
        return outcome


def table(found: list[Outcome]) -> Table:
    """A row a kind."""
    made = Table("kind", "sent", "refused", "accepted", "crashes", "peak MB", "kept MB", "s", header_style="bold")
    for one in found:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in one.refused.most_common())
        measures = (str(len(one.crashes)), f"{one.peak_mb:.1f}", f"{one.kept_mb:.1f}", f"{one.seconds:.1f}")
        made.add_row(one.kind, f"{one.sent:,}", reasons, f"{one.accepted:,}", *measures)
    return made


def main() -> int:
    """Run, print, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="how many inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broker", action="store_true", help="a tenth through the joiner's process on a real broker")
    parser.add_argument("--only-broker", type=int, metavar="COUNT", help="so many through that process, nothing else")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)
    found: list[Outcome] = []
    if arguments.only_broker:
        kinds = iter([through_a_broker(arguments.only_broker, arguments.seed)])
    else:
        kinds = outcomes(arguments.count, arguments.seed, with_broker=arguments.broker)
    for outcome in kinds:
        found.append(outcome)
        console.print(f"{outcome.kind}: {outcome.sent:,} in {outcome.seconds:.1f} s", highlight=False)
        for crash in outcome.crashes:
            console.print(crash, style="red", highlight=False, markup=False)
    console.print(table(found))
    sent = sum(one.sent for one in found)
    crashes = sum(len(one.crashes) for one in found)
    peak_mb = max(one.peak_mb for one in found)
    kept_mb = max(one.kept_mb for one in found)
    console.print(
        f"{sent:,} sent, {crashes} crashes; memory grew by {peak_mb:.0f} MB at most while a kind was read, and by "
        f"{kept_mb:.0f} MB after its first fifth",
        highlight=False,
    )
    return 0 if all(one.is_complete() for one in found) else int(ExitCode.CHECK_FAILED)


if __name__ == "__main__":
    sys.exit(main())
