"""The whole system on a secured Kafka, each part as the user that the table of rights has for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from onerec.demo.supervisor import Service, Supervisor
from onerec.kafka.writer import RecordWriter
from onerec.metrics import scrape
from onerec.settings import KafkaSettings
from schemas.records import Action, ActionKind, Impression
from schemas.topics import ACTIONS, IMPRESSIONS, ITEMS, id_key
from tests.security.secured import SecuredKafka, environment_of
from tests.stream.tokenizer.items import embeddings, item

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
ITEM_COUNT = 40
VISIT_MS = 150_000
"""Of event time between two visits; more than an impression waits for its actions."""
SERVICES: Mapping[str, tuple[str, str]] = {
    "tokenizer": ("stream", "tokenizer"),
    "joiner": ("stream", "joiner"),
    "trainer": ("trainer", "run"),
    "worker": ("inference", "worker"),
    "sampler": ("inference", "sampler"),
}
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "ONEREC_MODEL__PRESET": "tiny",
    "ONEREC_STREAM__JOINER__SESSION_ITEMS": "3",
    "ONEREC_STREAM__JOINER__HISTORY_ITEMS": "8",
    "ONEREC_STREAM__JOINER__IDLE_CLOSE_S": "1",
    "ONEREC_TRAINER__SEED__WAIT_S": "0",
    "ONEREC_TRAINER__SEED__SETTLE_S": "0.1",
    "ONEREC_TRAINER__PUBLISH_INTERVAL_S": "0.1",
    "ONEREC_INFERENCE__DECODING__BEAM_WIDTH": "16",
    "ONEREC_INFERENCE__WORKER__DEADLINE_MS": "60000",
    "ONEREC_INFERENCE__SAMPLER__SHARE": "1",
    "ONEREC_INFERENCE__SAMPLER__CANDIDATES": "8",
}


class System:
    """Services as processes, and commands, each with its own login and one store."""

    def __init__(self, secured: SecuredKafka, folder: Path, extra: Mapping[str, Mapping[str, str]]) -> None:
        """`extra` are further variables by user."""
        self.secured = secured
        self.folder = folder
        self._extra = extra
        self._store = {"ONEREC_STORE__URI": str(folder / "store"), "ONEREC_STORE__STATE_DIR": str(folder / "state")}
        self.supervisor = Supervisor(folder, SETTINGS | self._store)
        self.output = ""
        """What all commands have printed."""

    def kafka(self, user: str) -> KafkaSettings:
        """A user's settings."""
        return self.secured.settings(user)

    def environment(self, user: str) -> dict[str, str]:
        """What tells a process who it is."""
        return {**environment_of(self.kafka(user)), **self._extra.get(user, {})}

    def start(self, service: str) -> Service:
        """Start a service as its user."""
        environment = self.environment(service) | {"ONEREC_STORE__STATE_DIR": str(self.folder / "state" / service)}
        return self.supervisor.start(service, *SERVICES[service], **environment)

    def run(self, user: str, *arguments: str) -> str:
        """Run `python -m …` as a user to its end; what it printed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ONEREC_")}
        environment = clean | SETTINGS | self._store | self.environment(user)
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        self.output += done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait; fails where a service has ended."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not holds():
            self.supervisor.check()
            assert time.monotonic() < deadline_s, self.logs()[-5000:]
            time.sleep(0.1)

    def ready(self, *services: str) -> None:
        """Wait until these do their work."""

        def all_ready() -> bool:
            samples = scrape(self.supervisor.endpoints())
            return all(samples.get("onerec_ready", job=name) for name in services)

        self.until(all_ready)

    def logs(self) -> str:
        """All that the services have printed."""
        return "".join(path.read_text() for path in sorted((self.folder / "logs").glob("*.log")))

    def visible(self) -> str:
        """Command lines and metrics of the running services."""
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.supervisor.process_ids()]
        for port in self.supervisor.endpoints().values():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                lines.append(answer.read().decode())
        return "".join(lines)

    def publish_items(self, first: int = 0, count: int = ITEM_COUNT) -> None:
        """As the producer."""
        writer = RecordWriter(self.kafka("producer"))
        vectors = embeddings(ITEM_COUNT + 100)
        for number in range(first, first + count):
            writer.send(ITEMS, id_key(number), item(number, vectors[number % len(vectors)]))
        writer.flush(DEADLINE_S)

    def publish_events(self, users: int, visit: int = 0) -> None:
        """As the producer: each user sees six items and watches all of them, later in event time with each visit.

        So what a visit has opened closes with the next one, however soon that comes.
        """
        writer = RecordWriter(self.kafka("producer"))
        now_ms = time.time_ns() // 1_000_000
        for user in range(users):
            for place in range(6):
                shown = {"user_id": user, "item_id": (7 * user + place) % ITEM_COUNT, "produced_ms": now_ms}
                at_ms = now_ms - 600_000 + VISIT_MS * visit + 1000 * place
                request = 1000 * user + 10 * visit + place
                impression = Impression(request_id=request, position=0, time_ms=at_ms, **shown)
                action = Action(request_id=request, kind=ActionKind.VIEW, watch_ms=20_000, time_ms=at_ms + 500, **shown)
                writer.send(IMPRESSIONS, id_key(user), impression, timestamp_ms=at_ms)
                writer.send(ACTIONS, id_key(user), action, timestamp_ms=at_ms + 500)
        writer.flush(DEADLINE_S)
