"""Options of `python -m stream replay`. Light to import: the work is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onerec.cli.options import Config, fail
from onerec.errors import OneRecError
from onerec.followers import ports_of
from onerec.service import run_service
from onerec.settings import Settings, load_settings
from stream.replay.options import PARTS, Options

ALL_PARTS = ",".join(PARTS)

Data = Annotated[
    Path | None, typer.Option(help="Folder of the log's files; the small KuaiRand that ships with this by default.")
]
Mapping = Annotated[
    Path | None, typer.Option(help="TOML file that says which columns of your own parquet or CSV files are what.")
]
Only = Annotated[str, typer.Option(help="Which of items, histories and events, comma-separated.")]
Events = Annotated[int | None, typer.Option(min=1, help="So many exposures; all by default.")]
Start = Annotated[str | None, typer.Option(help="From this event time on, like 2022-04-27T18:00 (UTC).")]
ShiftDays = Annotated[
    int,
    typer.Option(min=0, help="Events happen so many days later, so that a log sent again is one of new visits."),
]
Speed = Annotated[
    float | None, typer.Option(min=0.0, help="Event time per wall time: 60 is a minute a second; 0 has no brake.")
]
ShuffleMs = Annotated[
    int | None, typer.Option(min=0, help="Send impressions and actions out of order, up to so much event time.")
]
LateShare = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Send this share of the actions after their window.")
]
MaxUnanswered = Annotated[
    int | None,
    typer.Option(
        min=0, help="Pause while so many requests, or the one of the next event, have no answer; 0 never pauses."
    ),
]
AskAheadMs = Annotated[
    int | None, typer.Option(min=0, help="Send requests so much event time early; with --max-unanswered 1 or more.")
]
AwaitShadow = Annotated[
    bool | None,
    typer.Option("--await-shadow", help="Wait for the shadow worker, too: then it sees the same histories."),
]
Follower = Annotated[
    list[str] | None, typer.Option(help="NAME=PORT of the metrics of a joiner or trainer: wait while it is behind.")
]
Seed = Annotated[int | None, typer.Option(help="Of shuffle and lateness.")]
Summary = Annotated[Path | None, typer.Option(help="Write what was sent to this file as JSON.")]


def replay(  # noqa: PLR0917 - a command line
    data: Data = None,
    mapping: Mapping = None,
    only: Only = ALL_PARTS,
    events: Events = None,
    start: Start = None,
    shift_days: ShiftDays = 0,
    speed: Speed = None,
    shuffle_ms: ShuffleMs = None,
    late_share: LateShare = None,
    max_unanswered: MaxUnanswered = None,
    ask_ahead_ms: AskAheadMs = None,
    await_shadow: AwaitShadow = None,
    follower: Follower = None,
    seed: Seed = None,
    summary: Summary = None,
    config: Config = None,
) -> None:
    """Publish a recorded log: items, histories, then requests, impressions and actions in event-time order."""
    wanted = {
        "speed": speed,
        "shuffle_ms": shuffle_ms,
        "late_share": late_share,
        "max_unanswered": max_unanswered,
        "ask_ahead_ms": ask_ahead_ms,
        "await_shadow": await_shadow,
        "seed": seed,
    }
    settings = _settings(config, {name: value for name, value in wanted.items() if value is not None})
    parts = tuple(part.strip() for part in only.split(",") if part.strip())
    try:
        followers = ports_of(follower or ())
    except OneRecError as error:
        raise fail(error) from error
    options = Options(parts, data, mapping, events, start, shift_days, summary, followers)
    from stream.replay.command import run_replay  # noqa: PLC0415 - loads numpy, pyarrow and the Kafka client

    def body(stop: Any) -> None:
        run_replay(settings, options, stop)

    raise typer.Exit(run_service("replay", settings, body, metrics=False))


def _settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    try:
        return load_settings(config, stream={"replay": flags})
    except OneRecError as error:
        raise fail(error) from error
