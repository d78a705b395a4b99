"""The weights store is away for minutes under a running system, then it comes back with all that was in it."""

from __future__ import annotations

from pathlib import Path

from chaos.fault import Context, Fault, Outcome
from chaos.system import TRAINER, System, worker
from onerec.metrics import scrape

AWAY_LONG_S, AWAY_SHORT_S = 150.0, 8.0
NOTICED_WITHIN_S = 20.0
"""After so long nobody may pretend that the store is there: the worker looks every five seconds."""
LIFE_S = 5.0
RECORDS_PER_S = 30.0


def run(context: Context) -> Outcome:
    """Answers go on with the last version, none is announced, both services say what they lack; then all goes on."""
    away_s = AWAY_LONG_S if context.long else AWAY_SHORT_S + NOTICED_WITHIN_S
    with context.system() as system:
        store = Path(system.settings.store.uri)
        away = store.with_name("away")
        with system.feeding(RECORDS_PER_S):
            system.tend(LIFE_S)
            store.rename(away)
            context.say(f"the weights store is away for {away_s:.0f} s")
            system.tend(NOTICED_WITHIN_S)
            saying, before = lacking(system), system.progress.output()
            system.tend(away_s - NOTICED_WITHIN_S)
            meanwhile = {name: count - before[name] for name, count in system.progress.output().items()}
            store_made_anew = store.exists()
            if not store_made_anew:
                away.rename(store)
            system.tend(LIFE_S)
        silent = {TRAINER, worker(0)} - saying
        broken = [f"{' and '.join(sorted(silent))} did not say so"] if silent else []
        broken += ["a version was announced that nobody could read"] if meanwhile["versions"] else []
        broken += ["another store was made in its place"] if store_made_anew else []
        seen = f"{away_s:.0f} s without it; {meanwhile['answers']} answers came after everybody had noticed"
        return context.judge(system, seen=seen, vacuous=not meanwhile["answers"], broken="; ".join(broken))


def lacking(system: System) -> set[str]:
    """The services that say by their metric that they lack the store."""
    samples = scrape(system.supervisor.endpoints()).values.get("onerec_degraded", {})
    return {
        dict(labels)["job"] for labels, value in samples.items() if value and dict(labels)["lacks"] == "weights store"
    }


FAULT = Fault(
    name="store-away",
    injected="the folder of the weights store is renamed away for two and a half minutes while the log flows",
    promise="the last version serves on; trainer and worker say what they lack; nothing unstored is announced",
    run=run,
)
