"""A trainer as its own process on a real broker, fed with a small world's records."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings, Settings, load_settings
from schemas.packed import pack_longs
from schemas.records import History, JournalEntry, ModelVersion, PreferencePair, Session
from schemas.topics import HISTORIES, ITEM_TOKENS, MODEL_VERSIONS, PREFERENCES, SESSIONS, TRAINER_JOURNAL, Topic, id_key
from tests.kafka.reading import followed
from tests.trainer import toy

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120.0
POLL_S = 0.1
USERS = 24
PROGRAM = "from trainer.__main__ import app; app()"


@dataclass
class World:
    """Topics, settings and the processes started on them."""

    kafka: KafkaSettings
    folder: Path
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """As the processes have them."""
        quick = {"publish_interval_s": 0.05, "batch_wait_ms": 20, "checkpoint_interval_s": 0.5, "warmup_steps": 0}
        seed = {"samples": 64, "batch": 16, "settle_s": 0.1, "wait_s": 0.0, "threads": 1}
        return load_settings(
            kafka=self.kafka.model_dump(),
            store={"uri": str(self.folder / "store"), "state_dir": str(self.folder / "state")},
            model={"preset": "tiny"},
            trainer={**quick, "seed": seed, **self.trainer},
        )

    def publish_catalogue(self, items: Iterable[int] = range(toy.ITEMS)) -> None:
        """Semantic ids of items."""
        self.send(ITEM_TOKENS, [(id_key(item), toy.tokens(item)) for item in items])

    def publish_histories(self, users: int = USERS) -> None:
        """Eleven exposures a user, every third was watched long."""
        histories = [
            History(
                user_id=user,
                history_items=pack_longs((user + 3 * k) % toy.ITEMS for k in range(11)),
                history_times_ms=pack_longs([0] * 11),
                history_labels=bytes(k % 3 == 0 for k in range(11)),
                updated_ms=1000,
            )
            for user in range(users)
        ]
        self.send(HISTORIES, [(id_key(history.user_id), history) for history in histories])

    def publish_sessions(self, sessions: Sequence[Session]) -> None:
        """To the partitions of their users, here by the session's id."""
        self.send(SESSIONS, [(id_key(session.session_id), session) for session in sessions])

    def publish_pairs(self, pairs: Sequence[PreferencePair]) -> None:
        """Preference pairs."""
        self.send(PREFERENCES, [(id_key(pair.pair_id), pair) for pair in pairs])

    def send(self, topic: Topic, records: Iterable[tuple[bytes, Any]]) -> None:
        """Write records and wait until they are there."""
        writer = RecordWriter(self.kafka)
        for key, record in records:
            writer.send(topic, key, record, timestamp_ms=1000)
        writer.flush(DEADLINE_S)

    def send_raw(self, topic: Topic, value: bytes) -> None:
        """Write bytes."""
        writer = RecordWriter(self.kafka)
        writer.producer.produce(self.kafka.topic_prefix + topic.name, value, b"7", timestamp=1000)
        writer.flush(DEADLINE_S)

    def all(self, topic: Topic) -> list[Any]:
        """Every record of a topic, as it stands now."""
        records: list[Any] = []
        follower = TopicFollower(self.kafka, topic, lambda received: records.append(received.record), service="test")
        follower.catch_up(DEADLINE_S)
        follower.close()
        return records

    def journal(self) -> list[JournalEntry]:
        """The journal."""
        return self.all(TRAINER_JOURNAL)

    def versions(self) -> list[ModelVersion]:
        """What was announced."""
        return self.all(MODEL_VERSIONS)

    def wait(
        self,
        condition: Callable[[], bool],
        process: subprocess.Popen[bytes] | None = None,
        *,
        within_s: float = DEADLINE_S,
    ) -> None:
        """Until the condition holds; fails with the process's output where it ends before."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert process is None or process.poll() is None, self.log()
            assert time.monotonic() < deadline_s, f"not within {within_s:g} s"
            time.sleep(POLL_S)

    def wait_for_sessions(
        self, count: int, process: subprocess.Popen[bytes] | None = None, *, within_s: float = DEADLINE_S
    ) -> None:
        """Until the newest announced version has learned from (or refused) so many messages on sessions."""
        with followed(self.kafka, MODEL_VERSIONS) as versions:

            def learned() -> bool:
                found: list[ModelVersion] = versions()
                offsets = found[-1].offsets if found else ()
                return sum(offset.next_offset for offset in offsets if offset.topic == SESSIONS.name) >= count

            self.wait(learned, process, within_s=within_s)

    @contextmanager
    def running(self, command: str = "run", *, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """As `start`, until the block ends; then it is asked to stop, as an operator would."""
        process = self.start(command, before=before)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
        assert process.returncode == 0, self.log()

    def log(self) -> str:
        """What the processes have printed."""
        return (self.folder / "trainer.log").read_text()

    def config(self) -> Path:
        """The settings as a file."""
        path = self.folder / "onerec.toml"
        path.write_text(
            _toml(self.settings.model_dump(mode="json", exclude_none=True, exclude={"inference", "stream"}))
        )
        return path

    def start(self, command: str = "run", *, before: str = "", ranks: int = 0) -> subprocess.Popen[bytes]:
        """`python -m trainer <command>`, after the statements `before`.

        With `ranks` by torchrun, that starts all of them again when one fails.
        """
        program = ["-c", before + PROGRAM] if before else ["-m", "trainer"]
        launcher = torchrun(ranks, "--max-restarts", "3") if ranks else [sys.executable]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ONEREC_")}
        elsewhere = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        with (self.folder / "trainer.log").open("ab") as log:
            return subprocess.Popen(
                [*launcher, *program, command, "--config", str(self.config())],
                cwd=ROOT,
                env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *elsewhere])},
                stderr=log,
            )


def torchrun(ranks: int, *options: str) -> list[str]:
    """The command up to the module to run, as so many processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *options]


def _toml(tables: dict[str, Any], prefix: str = "") -> str:
    """Nested dicts of plain values as TOML."""
    import json

    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    nested = {key: value for key, value in tables.items() if isinstance(value, dict)}
    lines = [f"[{prefix}]"] if prefix else []
    lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in plain.items()]
    return (
        "\n".join(lines) + "\n" + "".join(_toml(value, f"{prefix}.{key}".strip(".")) for key, value in nested.items())
    )
