"""The Beauty table from the rows' files: means and deviations over seeds, as JSON and as part of docs/paper.md."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from evaluation.beauty.accuracy import COLUMNS
from evaluation.beauty.protocol import FULL, PUBLISHED, Form, described
from evaluation.beauty.published import rows_in
from evaluation.beauty.rows import families
from evaluation.pages import grid, put, short, spread
from onerec.errors import CheckFailedError, DependencyMissingError

BEGIN, END = "<!-- beauty -->\n", "<!-- /beauty -->\n"
HEADINGS = ("Recall@5", "NDCG@5", "Recall@10", "NDCG@10")


def summarise(place: Path, form: Form) -> dict[str, Any]:
    """The table of a form's folder. Raises DependencyMissingError where it has no row."""
    known = [row for family in families() for row in family.rows]
    files = [json.loads(path.read_text()) for path in rows_in(place)]
    if not files:
        raise DependencyMissingError(f"{place} holds no row.", "Run `python -m evaluation beauty` first.")
    return {
        "protocol": described(form),
        "seeds": sorted({file["seed"] for file in files}),
        "commits": sorted({file["commit"] for file in files}),
        "machine": files[0]["machine"],
        "published": PUBLISHED,
        "rows": {name: _row(own) for name in known if (own := [file for file in files if file["row"] == name])},
    }


def onto(published: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """The published table with the summary's rows in it; a row names the machines it was trained on.

    Raises CheckFailedError where the two are of different forms: their rows cannot stand in one table.
    """
    forms = [table["protocol"]["name"] for table in (published, summary)]
    if forms[0] != forms[1]:
        raise CheckFailedError(
            f"The published table is of the {forms[0]} form, this one of the {forms[1]} form.", "Leave out --published."
        )
    both = published["rows"] | summary["rows"]
    known = [row for family in families() for row in family.rows]
    return summary | {
        "seeds": sorted({seed for row in both.values() for seed in row["seeds"]}),
        "commits": sorted({*published["commits"], *summary["commits"]}),
        "rows": {name: both[name] for name in known if name in both},
    }


def _row(files: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {name: spread(file[name] for file in files) for name in COLUMNS}
    return columns | {
        "with_seen_items": {name: spread(file["all"][name] for file in files) for name in COLUMNS},
        "validation_recall_at_10": spread(file["validation"]["unseen"]["recall_at_10"] for file in files),
        "parameters": files[0]["parameters"],
        "train_minutes": spread(file["train_minutes"] for file in files),
        "seeds": sorted(file["seed"] for file in files),
        "machines": sorted({_where(file["machine"]) for file in files}),
        "details": {str(file["seed"]): file["details"] for file in files},
    }


def _where(machine: dict[str, Any]) -> str:
    return str(machine.get("gpu", machine["cpu"]))


def table(summary: dict[str, Any]) -> str:
    """Markdown: our rows, then what others published."""
    head = ["row", *HEADINGS, "Recall@10 with seen items", "parameters", "epochs", "minutes", "trained on", "seeds"]
    rows = []
    for name, row in summary["rows"].items():
        cells = [_figure(row[column]) for column in COLUMNS]
        size = f"{row['parameters'] / 1e6:.2f}M" if row["parameters"] else "-"
        minutes = f"{row['train_minutes'][0]:.1f}"
        with_seen = _figure(row["with_seen_items"]["recall_at_10"])
        seeds, where = ", ".join(map(str, row["seeds"])), ", ".join(row["machines"])
        rows.append([name, *cells, with_seen, size, _epochs(row), minutes, where, seeds])
    for name, row in summary["published"].items():
        cells = [f"{row[column]:.4f}" if column in row else "-" for column in COLUMNS]
        rows.append([f"*published:* {name}", *cells, *["-"] * 6])
    return grid(head, rows)


def write_paper(paper: Path, summary: dict[str, Any]) -> None:
    """Put protocol and table between their marks in docs/paper.md; makes the file where there is none."""
    form = summary["protocol"]
    text = textwrap.dedent(form["text"]).strip()
    caution = "" if form["name"] == FULL.name else CAUTION.format(**form)
    section = (
        f"{BEGIN}## Amazon Beauty\n\nMade by `python -m evaluation beauty --paper`; form `{form['name']}`, seeds "
        f"{', '.join(map(str, summary['seeds']))}, commit {short(summary['commits'])}."
        f"{caution}\n\n{text}\n\n{table(summary)}{END}"
    )
    put(paper, section, BEGIN, END)


CAUTION = (
    "\n\nThese are figures of the {name} form: the first {users} users and their items alone, and models trained for "
    "seconds. They show that these rows run, and cannot be compared with published ones."
)


def _epochs(row: dict[str, Any]) -> str:
    """How many epochs the row's models had, from the fewest to the most; a form may ask for more than time allowed."""
    found = {
        own["epochs"]
        for details in row["details"].values()
        for own in details.get("training", ()) or [details]
        if "epochs" in own
    }
    return "-" if not found else str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"


def _figure(pair: list[float]) -> str:
    mean, deviation = pair
    return f"{mean:.4f}" + (f" ± {deviation:.4f}" if deviation >= 0.00005 else "")
