"""`onerec dead-letters`: what was refused and why, one letter whole, and putting letters back."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from onerec.cli.letter_view import FEW, fields_of, letters, print_letter, print_overview, print_plan
from onerec.cli.options import Config, Json, fail, read_settings
from onerec.errors import OneRecError, SettingsError
from schemas.reasons import Reason
from schemas.topics import BY_NAME

if TYPE_CHECKING:
    from onerec.kafka.letter_replay import Plan
    from onerec.kafka.letters import Selection

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

app = typer.Typer(no_args_is_help=True, help="Refused records: list them, show one, put them back.")
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only with this reason; repeat it for more.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only from this topic, named without prefix.")]
Services = Annotated[list[str] | None, typer.Option("--service", help="Only refused by this service.")]
Since = Annotated[
    str | None,
    typer.Option(help="Only refused since then: a time like 2026-01-31T12:00 (UTC), or an age like 90m, 2d."),
]


@app.command("list")
def list_letters(
    *,
    reason: Reasons = None,
    topic: Topics = None,
    service: Services = None,
    since: Since = None,
    newest: Annotated[int, typer.Option(min=1, help="Offsets of so many newest letters of each.")] = FEW,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Count the letters by service, topic and reason, with the newest of each."""
    from onerec.kafka.letters import overview  # noqa: PLC0415

    settings = read_settings(config)
    try:
        found = overview(settings.kafka, _selection(reason, topic, service, since), newest)
    except OneRecError as error:
        raise fail(error) from error
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    print_overview(found)


@app.command()
def show(
    offset: Annotated[int, typer.Argument(min=0, help="Offset of the letter on dead-letters.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one letter: where it is from, why it was refused, its bytes and, where they decode, its record."""
    from onerec.kafka.letters import is_replayed, letter_at  # noqa: PLC0415

    settings = read_settings(config)
    try:
        letter = letter_at(settings.kafka, offset)
        fields = fields_of(settings.kafka, letter) | {"replayed": is_replayed(settings.kafka, letter)}
    except OneRecError as error:
        raise fail(error) from error
    if as_json:
        print(json.dumps(fields))
        return
    print_letter(fields)


@app.command()
def replay(
    offsets: Annotated[list[int] | None, typer.Argument(min=0, help="Offsets of letters on dead-letters.")] = None,
    *,
    reason: Reasons = None,
    topic: Topics = None,
    service: Services = None,
    since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be put back, and do nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Put back what was put back before, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
) -> None:
    """Put letters back into the topics that they came from, bytes, key and time as they were.

    Name letters by offsets, options, or both. A letter is put back once; --again repeats it.
    """
    from onerec.kafka import letter_replay  # noqa: PLC0415

    settings = read_settings(config)
    try:
        selection = _selection(reason, topic, service, since, offsets or ())
        if selection.is_everything():
            raise SettingsError("Nothing says which letters.", "Name offsets, --reason, --topic, --service or --since.")
        planned = letter_replay.plan(settings.kafka, selection, again=again)
        print_plan(planned)
        _check_offsets(planned, offsets or ())
        if dry_run or not planned.offsets:
            return
        if not yes:
            _confirm(len(planned.offsets))
        done = letter_replay.replay(settings.kafka, planned, again=again)
    except OneRecError as error:
        raise fail(error) from error
    print(f"{letters(done)} put back")


def _selection(
    reasons: list[str] | None,
    topics: list[str] | None,
    services: list[str] | None,
    since: str | None,
    offsets: Iterable[int] = (),
) -> Selection:
    """Raises SettingsError for a reason, topic or time that is none."""
    from onerec.kafka.letters import Selection  # noqa: PLC0415

    for option, given, known in (("reason", reasons, list(Reason)), ("topic", topics, list(BY_NAME))):
        for word in given or ():
            if word not in known:
                raise SettingsError(f"There is no {option} {word!r}.", f"Known are {', '.join(known)}.")
    return Selection(
        offsets=frozenset(offsets),
        reasons=tuple(reasons or ()),
        topics=tuple(topics or ()),
        services=tuple(services or ()),
        since_ms=None if since is None else since_ms(since, time.time_ns() // 1_000_000),
    )


def since_ms(text: str, now_ms: int) -> int:
    """A time of the command line in ms since the epoch. Raises SettingsError."""
    age = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if age:
        return now_ms - 1000 * int(age[1]) * SECONDS[age[2]]
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"--since {text} is no time: {error}.", "Write 2026-01-31T12:00, or 90m, 12h, 2d."
        ) from error
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return int(zoned.timestamp() * 1000)


def _check_offsets(planned: Plan, offsets: Iterable[int]) -> None:
    """Raises SettingsError where a named offset is none of a selected letter."""
    found = {*planned.offsets, *(offset for stay in planned.stay.values() for offset in stay)}
    missing = sorted(set(offsets) - found)
    if missing:
        raise SettingsError(
            f"No letter at offset {', '.join(map(str, missing[:FEW]))} that the options select.",
            "See `onerec dead-letters list`.",
        )


def _confirm(count: int) -> None:
    """Raises SettingsError where nobody answers, typer.Exit where the answer is no."""
    try:
        agreed = typer.confirm(f"Put {letters(count)} back?")
    except typer.Abort as error:
        raise SettingsError("Nobody answered, nothing was put back.", "Give --yes.") from error
    if not agreed:
        print("nothing was put back")
        raise typer.Exit
