"""Holds what was published of one user against what the user's events make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from audit.events import Done, Shown
from audit.exposure import Exposure, Outcome, lone_labels, outcome, wrong_fields, wrong_shape
from audit.findings import Findings, Kind
from audit.grouping import Absent, Leftover, leftover
from audit.histories import HistoriesAudit, HistoryDue, Published
from audit.matching import Actions, Found, Matched, Stream, match_actions, match_impressions
from audit.published import Entry, Timeline, difference, entries_of, sequence_difference
from schemas.records import ClosedBy, SessionItem
from schemas.topics import ACTIONS, IMPRESSIONS, SESSIONS, Topic


@dataclass(slots=True)
class UserAudit:
    """One user of one partition: call `run`."""

    user_id: int
    partition: int
    stream: Stream
    findings: Findings
    sessions: list[Found]
    histories: list[Published]
    shown: list[Shown]
    done: list[Done]
    history_unknown: bool = False
    """Whether the topics may have lost where the user's history began."""
    input_unknown: bool = False
    """Whether the topics have lost some of the events."""
    _late_bits: dict[int, list[tuple[int, int, Done]]] = field(default_factory=dict)
    """By item, of actions that came too late: up to which event time an exposure may have got their label bits."""

    def run(self) -> None:
        """All checks."""
        imported = self._imported()
        moments = {(entry.item_id, entry.time_ms) for entry in imported}
        matched = match_impressions(self.sessions, self.shown, self.stream, moments)
        exposures = [e for found in self.sessions for e in found.exposures if e is not None]
        actions = match_actions(self.done, [*exposures, *matched.left, *matched.maybe_left], self.stream)
        self._note_late(actions)
        self._say_impressions(matched)
        self._say_actions(actions)
        self._leave_uncommitted(matched)
        rest = leftover(matched.left, self.sessions, self.stream)
        self._say_leftover(rest, matched)
        steps = self._in_order(rest.absent)
        beginning = self._beginning(steps)
        timeline = Timeline(self.stream.settings.history_items, beginning or [])
        history = list(timeline.entries)
        for step in steps:
            if isinstance(step, Absent):
                entries = [self._entry(exposure) for exposure in step.exposures]
                timeline.append(entries)
            else:
                self._check_items(step, actions)
                timeline, entries = self._check_history_before(step, timeline)
            history += entries
        self._check_grouping(rest)
        making = [self._entry(exposure) for exposure in rest.making]
        certain = beginning is not None and not matched.maybe_left and not self.input_unknown
        due = HistoryDue(timeline.entries, history, making, certain=certain)
        self._histories_audit().run(self.histories, due, self.sessions, rest)

    def _imported(self) -> list[Entry]:
        """The history with which the joiner began."""
        first = next((one.offset for one in self.histories if one.joined), None)
        before = [one for one in self.histories if not one.joined and (first is None or one.offset < first)]
        return entries_of(before[-1].record, self._most_of(0)) if before else []

    def _beginning(self, steps: Sequence[Found | Absent]) -> list[Entry] | None:
        """The imported history, or where it may have been removed that of the first session; None for unknown."""
        imported = self._imported()
        if imported or not self.history_unknown:
            return imported
        if steps and isinstance(steps[0], Found):
            return entries_of(steps[0].session, self._most_of(0))
        return None

    def _histories_audit(self) -> HistoriesAudit:
        return HistoriesAudit(self.user_id, self.partition, self.stream, self.findings, self._late_bits)

    def _note_late(self, actions: Actions) -> None:
        for action in (*actions.late, *actions.unresolved, *actions.lost):
            until_ms = action.time_ms + self.stream.settings.feedback_window_ms
            bits = lone_labels(action, self.stream.settings.labels)
            self._late_bits.setdefault(action.item_id, []).append((until_ms, bits, action))

    def _most_of(self, base: int) -> Callable[[int, int], int]:
        def most(item_id: int, time_ms: int) -> int:
            bits = base
            for until_ms, more, _ in self._late_bits.get(item_id, ()):
                if time_ms <= until_ms:
                    bits |= more
            return bits

        return most

    def _entry(self, exposure: Exposure) -> Entry:
        rule, shown = self.stream.settings.labels, exposure.shown
        least = exposure.outcome(rule).labels
        most = least
        if exposure.maybe:
            most |= outcome(shown, [*exposure.sure, *exposure.maybe], rule).labels
        return Entry(shown.item_id, shown.time_ms, least, self._most_of(most)(shown.item_id, shown.time_ms))

    def _in_order(self, absent: Sequence[Absent]) -> list[Found | Absent]:
        """Sessions as they were published, the absent ones where they belong."""
        steps: list[Found | Absent] = list(self.sessions)
        for one in absent:
            at = next((n for n, step in enumerate(steps) if _start_ms(step) > one.start_ms), len(steps))
            steps.insert(at, one)
        return steps

    def _say_impressions(self, matched: Matched) -> None:
        self.findings.line(IMPRESSIONS.name).found += matched.accounted
        for one in matched.refused_twice:
            self._add(IMPRESSIONS, Kind.DOUBLE, one.offset, "is in a session and in dead-letters")

    def _leave_uncommitted(self, matched: Matched) -> None:
        """Sessions of input that is not committed as joined: of a transaction that was aborted."""
        for found in matched.uncommitted:
            what = "is made of impressions that are not committed as joined"
            kind = Kind.REPEATED if self.stream.repeats_allowed else Kind.EXTRA
            self._add(SESSIONS, kind, found.offset, f"session {found.session.session_id} {what}")
            self.sessions.remove(found)

    def _say_actions(self, actions: Actions) -> None:
        self.findings.line(ACTIONS.name).found += actions.accounted
        if actions.open:
            self._add(ACTIONS, Kind.OPEN, 0, "waits for its impression", count=actions.open)
        for action in actions.lost:
            self._add(ACTIONS, Kind.MISSING, action.offset, "no exposure took it, and it is not in dead-letters")
        for action, exposure in actions.early:
            detail = f"is in dead-letters, but the window of impressions[{self.partition}]@{exposure.shown.offset} "
            self._add(ACTIONS, Kind.WRONG, action.offset, detail + "was open")

    def _say_leftover(self, rest: Leftover, matched: Matched) -> None:
        for exposure, found in rest.lost:
            detail = f"item {exposure.shown.item_id} is missing in sessions[{self.partition}]@{found.offset}"
            self._add(IMPRESSIONS, Kind.MISSING, exposure.shown.offset, detail)
        line = self.findings.line(SESSIONS.name)
        line.expected += len(self.sessions) + len(rest.absent)
        line.found += len(self.sessions)
        for absent in rest.absent:
            self._add(
                SESSIONS, Kind.MISSING, absent.exposures[0].shown.offset, f"{absent.name} is not there", at=IMPRESSIONS
            )
        accounted = len(rest.making) + sum(len(absent.exposures) for absent in rest.absent)
        self.findings.line(IMPRESSIONS.name).found += accounted
        still_open = len(rest.making) + len(matched.maybe_left)
        if still_open:
            self._add(IMPRESSIONS, Kind.OPEN, 0, "of a session in the making", count=still_open)

    def _check_items(self, found: Found, actions: Actions) -> None:
        """Every item's labels and times, then what the session says of all of them."""
        session, problems = found.session, [*wrong_fields(found.session, self.stream.settings)]
        problems += wrong_shape(session, self.stream.settings)
        unknown = [item for item, e in zip(session.items, found.exposures, strict=True) if e is None]
        if unknown and not self.input_unknown:
            if len(unknown) == len(session.items):
                self._add(SESSIONS, Kind.EXTRA, found.offset, f"session {session.session_id}: nothing of it was shown")
                return
            problems += [f"item {item.item_id} of request {item.request_id} was not shown" for item in unknown]
        for item, exposure in zip(session.items, found.exposures, strict=True):
            if exposure is not None:
                problems += self._item_problems(item, exposure, found, actions)
        if problems:
            self._add(SESSIONS, Kind.WRONG, found.offset, f"session {session.session_id}: {'; '.join(problems)}")

    def _item_problems(self, item: SessionItem, exposure: Exposure, found: Found, actions: Actions) -> list[str]:
        rule = self.stream.settings.labels
        has = Outcome(item.watch_ms, item.duration_ms, item.labels, item.produced_ms)
        wanted = exposure.outcome(rule)
        if has == wanted:
            exposure.maybe.clear()
            return []
        explained = exposure.explain(has, rule)
        if explained is not None:
            exposure.sure += explained
            exposure.maybe.clear()
            return []
        if self.input_unknown and has.labels & wanted.labels == wanted.labels:
            return []
        self._blame(has, exposure, found, actions)
        columns = zip(Outcome._fields, has, wanted, strict=True)
        differing = [f"{name} {got} instead of {must}" for name, got, must in columns if got != must]
        return [f"item {item.item_id} has {', '.join(differing)}"]

    def _blame(self, has: Outcome, exposure: Exposure, found: Found, actions: Actions) -> None:
        """Name the one action whose loss, or whose use in spite of its refusal, makes the difference."""
        rule, where = self.stream.settings.labels, f"sessions[{self.partition}]@{found.offset}"
        for action in exposure.sure:
            if outcome(exposure.shown, [other for other in exposure.sure if other is not action], rule) == has:
                self._add(ACTIONS, Kind.MISSING, action.offset, f"did not reach {where}, and is not in dead-letters")
                return
        for action in actions.refused.get(exposure.shown.offset, ()):
            if outcome(exposure.shown, [*exposure.sure, action], rule) == has:
                self._add(ACTIONS, Kind.DOUBLE, action.offset, f"is in {where} and in dead-letters")
                return

    def _check_history_before(self, found: Found, timeline: Timeline) -> tuple[Timeline, list[Entry]]:
        """The history that a session carries; what the user's history is after it, and what it added."""
        session = found.session
        entries = [
            Entry(item.item_id, item.time_ms, item.labels, self._most_of(item.labels)(item.item_id, item.time_ms))
            if exposure is None
            else self._entry(exposure)
            for item, exposure in zip(session.items, found.exposures, strict=True)
        ]
        if len(entries) == 1 and sequence_difference(timeline.entries, session):
            before, whole = timeline.with_late(entries[0])
            if not sequence_difference(before.entries, session):
                self._say_history(found, before)
                return whole, entries
        self._say_history(found, timeline)
        timeline.append(entries)
        return timeline, entries

    def _say_history(self, found: Found, before: Timeline) -> None:
        problem = difference(before.entries, found.session, monotone=not self.stream.repeats_allowed)
        if problem:
            detail = f"session {found.session.session_id}, history before it: {problem}"
            self._add(SESSIONS, Kind.WRONG, found.offset, detail)

    def _check_grouping(self, rest: Leftover) -> None:
        """A session ends where it has to: not before its gap has passed, nor while the next exposure belongs to it."""
        settings = self.stream.settings
        absent = sorted(one.start_ms for one in rest.absent)
        for number, found in enumerate(self.sessions):
            session, first = found.session, found.exposures[0]
            if session.closed_by is not ClosedBy.GAP:
                continue
            gap_ms = session.end_ms + settings.session_gap_ms
            if len(session.items) == 1 and first is not None and not self.stream.in_order(first.shown):
                continue  # it came late and stands alone
            if gap_ms > self.stream.newest_ms + settings.feedback_window_ms:
                self._add(SESSIONS, Kind.WRONG, found.offset, "was closed by a gap that has not passed")
            after = self._next(number, rest)
            if after is None or not self.stream.in_order(after.shown):
                continue
            between = any(session.end_ms <= start <= after.shown.time_ms for start in absent)
            if session.end_ms <= after.shown.time_ms < gap_ms and not between:
                detail = f"ends before impressions[{self.partition}]@{after.shown.offset}, which belongs to it"
                self._add(SESSIONS, Kind.WRONG, found.offset, f"session {session.session_id} {detail}")

    def _next(self, number: int, rest: Leftover) -> Exposure | None:
        """The exposure after a session."""
        if number + 1 < len(self.sessions):
            return self.sessions[number + 1].exposures[0]
        return rest.making[0] if rest.making else None

    def _add(
        self, line: Topic, kind: Kind, offset: int, detail: str, *, at: Topic | None = None, count: int = 1
    ) -> None:
        self.findings.add(line.name, kind, ((at or line).name, self.partition, offset), detail, count=count)


def _start_ms(step: Found | Absent) -> int:
    return step.session.start_ms if isinstance(step, Found) else step.start_ms
