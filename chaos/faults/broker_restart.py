"""The broker is stopped in order or by SIGKILL, stays away for seconds, and comes back on the same log."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome, needs_restart

RESTARTS_LONG, RESTARTS_SHORT = 4, 1
LONGEST_AWAY_S = 8.0
"""Much less than kafka.broker_patience_s, after which services end for a person to mend."""
LONGEST_LIFE_S = 10.0


def run(context: Context) -> Outcome:
    """SIGKILL first, then SIGTERM, by turns."""
    broker = context.broker.process
    assert broker is not None
    restarts = RESTARTS_LONG if context.long else RESTARTS_SHORT
    kills, away_s = 0, 0.0
    with context.system() as system:
        with system.feeding():
            for number in range(restarts):
                system.tend(context.rng.uniform(2.0, LONGEST_LIFE_S))
                pause_s = context.rng.uniform(0.0, LONGEST_AWAY_S)
                if number % 2:
                    broker.stop()
                else:
                    broker.kill()
                    kills += 1
                context.say(f"the broker is away for {pause_s:.1f} s")
                context.pause(pause_s)
                broker.start()
                away_s += pause_s
            system.tend(LONGEST_LIFE_S)
        seen = f"{restarts} restarts, {kills} of them after SIGKILL, {away_s:.0f} s away besides its start"
        return context.judge(system, kills=kills, seen=seen)


FAULT = Fault(
    name="broker-restart",
    injected="SIGKILL and SIGTERM of an Apache Kafka node by turns; it starts again on its log after up to 8 s",
    promise="services wait for it and go on; nothing lost, nothing twice",
    run=run,
    missing=needs_restart,
)
