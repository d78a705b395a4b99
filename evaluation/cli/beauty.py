"""Amazon Beauty, and RecBole's SASRec on it beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation.cli.options import Device, begin, names_of, seeds_of
from evaluation.files import write_json
from evaluation.pages import PAPER, RESULTS
from onerec.cli.options import fail
from onerec.errors import OneRecError, SettingsError

if TYPE_CHECKING:
    import torch

    from evaluation.beauty.dataset import Beauty
    from evaluation.beauty.protocol import Form


def beauty(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="On the first users and their items, in minutes.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3; the quick form takes the first by default.")] = "",
    rows: Annotated[str, typer.Option(help="Only these rows, as cooccurrence,onerec; all by default.")] = "",
    data: Annotated[
        Path | None, typer.Option(envvar="AMAZON_BEAUTY", help="Folder of the data, which do not come with this.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where models train.")] = Device.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, on the CPU; --choose takes one a process.")] = 2,
    out: Annotated[Path | None, typer.Option(help="evaluation/results/beauty[-quick].json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and table into docs/paper.md, too.")] = False,
    onto_published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Go on from the rows in evaluation/results/beauty, and put all into the published table.",
        ),
    ] = False,
    choose: Annotated[
        bool, typer.Option("--choose", help="Instead compare trainings of the TIGER row by the validation item.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Trainings side by side, of --choose.")] = 1,
) -> None:
    """Amazon Beauty with TIGER's protocol, beside published figures; each row and seed is kept in runs/beauty."""
    from evaluation.beauty import dataset, protocol, report  # noqa: PLC0415 - loads torch

    begin()
    form = protocol.QUICK if quick else protocol.FULL
    chosen = seeds_of(seeds or ("1" if quick else "1,2,3"))
    try:
        if quick and (onto_published or choose):
            other = "--choose" if choose else "--published"
            raise SettingsError(f"What {other} makes is of the full form.", f"Leave out --quick or {other}.")
        own, data_set = _ready(device, threads), dataset.load(data or dataset.DEFAULT_FOLDER)
        if choose:
            _choose(data_set, form, own, processes, out, paper=paper)
            return
        summary = _rows(data_set, form, chosen, names_of(rows), own, onto_published=onto_published)
    except OneRecError as error:
        raise fail(error) from error
    write_json(out or RESULTS / ("beauty-quick.json" if quick else "beauty.json"), summary)
    if paper:
        report.write_paper(PAPER, summary)
    typer.echo(report.table(summary))


def _rows(
    beauty: Beauty, form: Form, seeds: list[int], rows: list[str], device: torch.device, *, onto_published: bool
) -> dict[str, Any]:
    from evaluation.beauty import published, report  # noqa: PLC0415 - loads torch
    from evaluation.beauty.run import run  # noqa: PLC0415

    onto = published.DEFAULT_FOLDER if onto_published else None
    place = run(beauty, form, seeds, only=rows, device=device, onto=onto)
    summary = report.summarise(place, form)
    if onto_published:
        published.publish(place)
        summary = report.onto(json.loads((RESULTS / "beauty.json").read_text()), summary)
    return summary


def _choose(beauty: Beauty, form: Form, device: torch.device, processes: int, out: Path | None, *, paper: bool) -> None:
    from evaluation.beauty import choices, choices_page  # noqa: PLC0415 - loads torch

    found = choices.choose(beauty, form, device=device, processes=processes)
    write_json(out or RESULTS / "beauty-choices.json", found)
    if paper:
        choices_page.write_paper(PAPER, found)
    typer.echo(choices_page.table(found))


def _ready(device: Device, threads: int) -> torch.device:
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.devices import use  # noqa: PLC0415

    own = torch.device(device.value)
    use(own, threads)
    return own


def recbole(
    *,
    python: Annotated[str, typer.Option(envvar="RECBOLE_PYTHON", help="Of an environment that has RecBole.")],
    users: Annotated[int | None, typer.Option(min=100, help="Only the first users; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1",
    length: Annotated[int, typer.Option(min=5, help="Of RecBole's histories.")] = 50,
    epochs: Annotated[int, typer.Option(min=1, help="Of RecBole, at most.")] = 200,
    our_epochs: Annotated[int | None, typer.Option(min=1, help="Of our SASRec; as in the Beauty table.")] = None,
    batch_share: Annotated[float, typer.Option(min=0.01, max=1, help="Of both batch sizes, for slices.")] = 1.0,
    rows: Annotated[str, typer.Option(help="Rows, in this order.")] = "recbole,recbole-wide,sasrec-softmax",
    data: Annotated[Path | None, typer.Option(envvar="AMAZON_BEAUTY", help="Folder of the data.")] = None,
    device: Annotated[Device, typer.Option(help="Of ours; RecBole takes a GPU where it has one.")] = Device.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, on the CPU.")] = 2,
    out: Annotated[Path | None, typer.Option(help="evaluation/results/recbole.json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and table into docs/paper.md, too.")] = False,
) -> None:
    """RecBole's SASRec beside ours on Amazon Beauty, by one protocol: that ours is no weak baseline."""
    from evaluation.beauty import dataset, protocol  # noqa: PLC0415 - loads torch
    from evaluation.recbole import compare, report  # noqa: PLC0415

    begin()
    settings = compare.Settings(
        python=python,
        users=users,
        length=length,
        epochs=epochs,
        our_epochs=our_epochs or protocol.FULL.sequence.epochs,
        batch_share=batch_share,
        rows=tuple(names_of(rows)),
        seeds=tuple(seeds_of(seeds)),
        threads=threads,
    )
    try:
        summary = compare.compare(dataset.load(data or dataset.DEFAULT_FOLDER), settings, _ready(device, threads))
    except OneRecError as error:
        raise fail(error) from error
    write_json(out or compare.RESULTS, summary)
    if paper:
        report.write_paper(PAPER, summary)
    typer.echo(report.table(summary))
