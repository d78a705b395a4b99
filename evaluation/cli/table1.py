"""The paper's Table 1 and Figures 4 to 6."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation.cli.options import Device, begin, names_of, seeds_of
from evaluation.files import write_json
from evaluation.pages import PAPER, RESULTS
from onerec.cli.options import fail
from onerec.errors import OneRecError

if TYPE_CHECKING:
    from evaluation.table1.protocol import Form


def table1(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="On a slice of the users, in minutes.")] = False,
    short: Annotated[bool, typer.Option("--short", help="On 4,000 users, in less than an hour a seed.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3; the quick form takes the first by default.")] = "",
    rows: Annotated[str, typer.Option(help="Only these rows, as sasrec,onerec-l; all by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="The table as JSON: evaluation/results/table1[-quick].json.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write protocol and table into docs/paper.md, too.")] = False,
    device: Annotated[Device, typer.Option(help="Where models train; rows may come from both.")] = Device.CPU,
    processes: Annotated[int, typer.Option(min=1, help="So many rows train side by side, on one GPU too.")] = 1,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Then end; the same command goes on.")] = None,
    onto_published: Annotated[
        bool, typer.Option("--published", help="Go on from the published rows and their judge; only what is missing.")
    ] = False,
    choose: Annotated[
        bool, typer.Option("--choose", help="Instead compare trainings of the generative rows before the evaluation.")
    ] = False,
    choose_baselines: Annotated[
        bool, typer.Option("--choose-baselines", help="The same for the rows that are not generative, on the CPU.")
    ] = False,
) -> None:
    """The paper's Table 1 on KuaiRand-Pure; each row and seed is kept in runs/table1 and not computed again."""
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.table1 import protocol, published, report  # noqa: PLC0415
    from evaluation.table1.run import run  # noqa: PLC0415

    begin()
    if choose or choose_baselines:
        (_choose if choose else _choose_baselines)(device, processes, out, paper=paper)
        return
    form = protocol.QUICK if quick else protocol.SHORT if short else protocol.FULL
    chosen = seeds_of(seeds or ("1" if quick else "1,2,3"))
    try:
        place = run(
            form,
            chosen,
            only=names_of(rows),
            device=torch.device(device.value),
            processes=processes,
            minutes=minutes,
            onto=published.DEFAULT_FOLDER if onto_published else None,
        )
        summary = report.summarise(place, form, chosen)
        write_json(file := out or RESULTS / ("table1-quick.json" if quick else "table1.json"), summary)
        if paper:
            _publish(place, form, summary, file.with_suffix(".png"))
    except OneRecError as error:
        raise fail(error) from error
    typer.echo(report.table(summary))


def _publish(place: Path, form: Form, summary: dict[str, Any], image: Path) -> None:
    """Into docs/paper.md; of the full form rows and judge, too. Raises CheckFailedError for rows of another judge."""
    from evaluation.table1 import picture, protocol, published, report  # noqa: PLC0415 - loads torch

    if form is protocol.FULL:
        published.publish(place)
    if rounds := summary["rounds"]:
        picture.draw(rounds, image)
    report.write_paper(PAPER, summary, image if rounds else None)


def _choose(device: Device, processes: int, out: Path | None, *, paper: bool) -> None:
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.table1 import choices, choices_page  # noqa: PLC0415

    try:
        found = choices.choose(device=torch.device(device.value), processes=processes)
    except OneRecError as error:
        raise fail(error) from error
    write_json(out or RESULTS / "table1-choices.json", found)
    if paper:
        choices_page.write_paper(PAPER, found)
    typer.echo(choices_page.table(found))


def _choose_baselines(_: Device, processes: int, out: Path | None, *, paper: bool) -> None:
    from evaluation.table1 import choices_baselines, choices_page  # noqa: PLC0415 - loads torch

    try:
        found = choices_baselines.choose(processes=processes)
    except OneRecError as error:
        raise fail(error) from error
    write_json(out or RESULTS / "table1-choices-baselines.json", found)
    if paper:
        choices_page.write_baselines(PAPER, found)
    typer.echo(choices_page.baselines_table(found))


def figures(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="On a slice of the users, in minutes.")] = False,
    short: Annotated[bool, typer.Option("--short", help="On 4,000 users, in less than an hour a seed.")] = False,
    only: Annotated[str, typer.Option(help="Only these of 4, 5 and 6, as 4,6; all by default.")] = "4,5,6",
    out: Annotated[Path | None, typer.Option(help="Folder of JSON and PNG; evaluation/results by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write the figures into docs/paper.md, too.")] = False,
    device: Annotated[Device, typer.Option(help="Where models train.")] = Device.CPU,
) -> None:
    """The paper's Figures 4, 5 and 6; each point is kept in runs/figures and not computed again."""
    import torch  # noqa: PLC0415 - loads for seconds

    from evaluation.figures import forms, page, plot  # noqa: PLC0415
    from evaluation.figures.run import run  # noqa: PLC0415

    begin()
    form = forms.QUICK if quick else forms.SHORT if short else forms.FULL
    folder, suffix = out or RESULTS, "-quick" if quick else ""
    try:
        found = run(form, only=names_of(only), device=torch.device(device.value))
        pictures = plot.draw(found, folder, suffix)
    except OneRecError as error:
        raise fail(error) from error
    write_json(folder / f"figures{suffix}.json", found)
    if paper:
        page.write_paper(PAPER, found, pictures)
    typer.echo("\n".join(map(str, pictures)))


def precision(
    *,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3.")] = "1,2,3",
    out: Annotated[Path | None, typer.Option(help="evaluation/results/precision.json by default.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write the table into docs/performance.md, too.")] = False,
) -> None:
    """What other kernels change in what is recommended: Table 1's larger OneRec, decoded by all that run here."""
    from evaluation import precision as own  # noqa: PLC0415 - loads torch

    begin()
    try:
        result = own.compare(seeds_of(seeds))
    except OneRecError as error:
        raise fail(error) from error
    write_json(out or RESULTS / "precision.json", result)
    if paper:
        own.write_page(PAPER.with_name("performance.md"), result)
    typer.echo(own.table(result))
