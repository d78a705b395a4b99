"""One user's records on topic histories against the history that the user's sessions make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit.events import NONE, Done
from audit.exposure import Exposure
from audit.findings import Findings, Kind
from audit.grouping import Leftover
from audit.matching import Found, Stream
from audit.published import Entry, difference, sequence_difference
from schemas.records import History
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS

LateBits = Mapping[int, Sequence[tuple[int, int, Done]]]
"""By item, of actions that came too late: up to which event time an exposure may have got their label bits."""


@dataclass(frozen=True, slots=True)
class Published:
    """A history of the topic."""

    offset: int
    record: History
    joined: bool
    """Whether the joiner wrote it; else it was imported."""


@dataclass(frozen=True, slots=True)
class HistoryDue:
    """What the history must be: after the last session, from the beginning, and of the session in the making."""

    newest: list[Entry]
    history: list[Entry]
    making: list[Entry]
    certain: bool
    """Whether all of that is known."""


@dataclass(slots=True)
class HistoriesAudit:
    """One user of one partition: call `run`."""

    user_id: int
    partition: int
    stream: Stream
    findings: Findings
    late_bits: LateBits

    def run(self, histories: Sequence[Published], due: HistoryDue, sessions: Sequence[Found], rest: Leftover) -> None:
        """The newest record, the labels of late actions in it, and the changes on the way."""
        joined = [one for one in histories if one.joined]
        closed = sum(self.stream.has_passed(exposure.shown.time_ms) for exposure in rest.making)
        wanted = bool(sessions or rest.absent or closed)
        line = self.findings.line(HISTORIES.name)
        line.expected += wanted
        line.found += bool(joined)
        exposures = [e for found in sessions for e in found.exposures if e is not None] + rest.making
        if not joined:
            if wanted:
                self._say_missing(exposures)
        elif due.certain and self._check_newest(joined[-1], due, closed) and not rest.absent:
            self._check_changes([*due.history, *due.making], joined[:-1], exposures)

    def _say_missing(self, exposures: Sequence[Exposure]) -> None:
        offset = exposures[0].shown.offset if exposures else 0
        at = (IMPRESSIONS.name, self.partition, offset)
        self.findings.add(HISTORIES.name, Kind.MISSING, at, f"user {self.user_id} has no history on the topic")

    def _check_newest(self, last: Published, due: HistoryDue, closed: int) -> bool:
        """It is the newest entries with some of the session in the making: at least the `closed` ones."""
        monotone, problem = not self.stream.repeats_allowed, ""
        for count in range(len(due.making), closed - 1, -1):
            entries = [*due.newest, *due.making[:count]][-self.stream.settings.history_items :]
            problem = sequence_difference(entries, last.record)
            if not problem:
                problem = difference(entries, last.record, monotone=monotone)
                if not problem and monotone:
                    self._check_late_labels([*due.history, *due.making[:count]], entries, last)
                break
        if problem:
            self._wrong(last, problem)
        return not problem

    def _check_late_labels(self, history: list[Entry], entries: list[Entry], last: Published) -> None:
        """The labels of each late action are in the history, where it is clear in which entry."""
        for item_id, late in self.late_bits.items():
            places = [place for place, entry in enumerate(entries) if entry.item_id == item_id]
            if len(places) != 1 or sum(entry.item_id == item_id for entry in history) != 1:
                continue
            labels = last.record.history_labels[places[0]]
            for until_ms, bits, action in late:
                sure = action.refused != NONE and entries[places[0]].time_ms <= until_ms
                if sure and bits & ~labels:
                    detail = f"was late, but its labels are not in histories[{self.partition}]@{last.offset}"
                    at = (ACTIONS.name, self.partition, action.offset)
                    self.findings.add(ACTIONS.name, Kind.MISSING, at, detail)

    def _check_changes(
        self, history: Sequence[Entry], changes: Sequence[Published], exposures: Sequence[Exposure]
    ) -> None:
        """Each change on the way is the history of some moment, and moments go on.

        That is so where exposures came in order of event time: a late one takes a place before others.
        """
        came, times = [e.shown.offset for e in exposures], [e.shown.time_ms for e in exposures]
        if self.stream.repeats_allowed or came != sorted(came) or times != sorted(times):
            return
        keep, at = self.stream.settings.history_items, 0
        for one in changes:
            while at < len(history) and sequence_difference(history[max(0, at + 1 - keep) : at + 1], one.record):
                at += 1
            if at == len(history):
                self._wrong(one, "this history was never the user's")
                return
            problem = difference(history[max(0, at + 1 - keep) : at + 1], one.record, monotone=False)
            if problem:
                self._wrong(one, problem)

    def _wrong(self, one: Published, problem: str) -> None:
        at = (HISTORIES.name, self.partition, one.offset)
        self.findings.add(HISTORIES.name, Kind.WRONG, at, f"user {self.user_id}: {problem}")
