"""What compaction has removed is not held against the joiner."""

from __future__ import annotations

from audit.findings import Findings, Kind
from schemas.packed import pack_longs
from schemas.records import History
from schemas.topics import id_key
from tests.audit.bus_log import audit_bus
from tests.audit.test_joined import system_of
from tests.recovery.bus import Entry
from tests.stream.joiner.system import JOINER, System, story

USERS = (1, 2, 3)


def import_histories(system: System) -> list[Entry]:
    """One exposure of each user, written before the joiner's first start."""
    wiring = system.wiring
    entries = []
    for user in USERS:
        history = History(
            user_id=user,
            history_items=pack_longs([90 + user]),
            history_times_ms=pack_longs([0]),
            history_labels=bytes(1),
            updated_ms=1,
        )
        entries.append(Entry(id_key(user), wiring.history_codec.encode(history), 1))
    system.bus.log((wiring.histories, 0)).extend(entries)
    return entries


def audited(*, compacted: bool) -> Findings:
    with system_of(story()) as system:
        imported = import_histories(system)
        system.live()
        if compacted:
            imported[1].state = "compacted"  # no reader gets it any more, its offset stays empty
        return audit_bus(system.bus, JOINER)


def test_an_imported_history_that_is_gone_is_no_difference() -> None:
    assert audited(compacted=False).clean
    findings = audited(compacted=True)
    assert findings.clean, "\n".join(map(str, findings.places))
    assert not findings.total(Kind.WRONG)
