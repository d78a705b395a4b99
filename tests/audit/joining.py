"""The join without clients and disks, writing what it gives out to a Kafka in memory: hundreds of runs a second.

Commits, standstills and idle inputs come where the test wants them.
"""

from __future__ import annotations

from collections.abc import Sequence

from onerec.kafka.dead_letters import letter_key, letter_of
from onerec.settings import JoinerSettings, KafkaSettings
from schemas.records import History, Impression
from schemas.topics import ACTIONS, DEAD_LETTERS, HISTORIES, IMPRESSIONS, SESSIONS, Topic, id_key
from stream.joiner.exposure import Came
from stream.joiner.join import Join
from stream.joiner.rows import action_row, impression_row
from stream.joiner.transaction import OFFSETS_HEADER, pack_offsets
from stream.joiner.watermark import ACTIONS as DONE
from stream.joiner.watermark import IMPRESSIONS as SHOWN
from stream.joiner.watermark import Watermark
from stream.joiner.wiring import names
from tests.recovery.bus import Bus, Entry
from tests.stream.joiner.events import Event, impression

WITNESS = 1000


class Joining:
    """One partition. Its topics are on `bus`."""

    def __init__(self, rules: JoinerSettings) -> None:
        self.rules = rules
        self.bus = Bus()
        self.kafka = KafkaSettings(partitions=1)
        self.bus.make_topics(self.kafka)
        self.wiring = names(self.kafka, "cluster", ["changelog", "histories"])
        self._histories: dict[int, History] = {}
        self._join = Join[Came](rules, self._histories.get, lambda came: came)
        self._watermark = Watermark()
        self._witnesses = 0

    def take(self, events: Sequence[Event]) -> None:
        """A batch comes; the watermark follows."""
        for event in events:
            self._take(event)
        self._join.advance(self._watermark.advance(self.rules.allowed_lateness_ms))

    def stand_still(self) -> None:
        """Nothing comes for longer than `idle_close_s`. Among many users, some session is open then."""
        newest_ms = max(*self._watermark.newest_ms, 0)
        self._witnesses += 1
        self.take([impression(1, newest_ms, user=WITNESS, request=self._witnesses)])
        self._join.advance(self._watermark.pass_everything(self.rules.feedback_window_ms))
        self._join.close_idle()

    def commit(self) -> None:
        """What has been joined is on the topics."""
        offsets = len(self.bus.log((IMPRESSIONS.name, 0))), len(self.bus.log((ACTIONS.name, 0)))
        self.bus.offsets = {(IMPRESSIONS.name, 0): offsets[0], (ACTIONS.name, 0): offsets[1]}
        changes = self._join.take_changes()
        for session in changes.sessions:
            self._write(SESSIONS, id_key(session.user_id), self.wiring.session_codec.encode(session))
        for refusal in changes.refusals:
            came = refusal.came
            letter = letter_of(
                self.kafka,
                topic=refusal.source,
                partition=0,
                offset=came.offset,
                timestamp_ms=came.timestamp_ms,
                key=came.key,
                value=came.value,
                reason=refusal.reason,
                detail=refusal.detail,
                service="joiner",
            )
            self._write(DEAD_LETTERS, letter_key(came.key), self.wiring.dead_letter_codec.encode(letter))
        for user in changes.users.values():
            if user.history_changed:
                user.history_changed = False
                record = self._histories[user.user_id] = user.history_record(self.rules.history_items)
                value = self.wiring.history_codec.encode(record)
                self._write(HISTORIES, id_key(user.user_id), value, [(OFFSETS_HEADER, pack_offsets(offsets))])
        self._join.forget(changes)

    def _take(self, event: Event) -> None:
        shown = isinstance(event, Impression)
        topic, codec = (IMPRESSIONS, self.wiring.impression_codec) if shown else (ACTIONS, self.wiring.action_codec)
        log = self.bus.log((topic.name, 0))
        came = Came(len(log), max(1, event.time_ms), id_key(event.user_id), codec.encode(event))
        log.append(Entry(came.key, came.value, came.timestamp_ms))
        if isinstance(event, Impression):
            self._join.impression(impression_row(event), came)
        else:
            self._join.action(action_row(event), came)
        source = SHOWN if shown else DONE
        self._watermark.newest_ms[source] = max(self._watermark.newest_ms[source], event.time_ms)

    def _write(
        self, topic: Topic, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        self.bus.log((topic.name, 0)).append(Entry(key, value, 1, headers))
