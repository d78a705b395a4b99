"""What was compared to choose how rows train, as parts of docs/paper.md."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from evaluation.pages import error_of_share, grid, put
from evaluation.table1.protocol import FULL, PRE_RANKED, RETRIEVED, GenerativeTraining

BEGIN, END = "<!-- table1-choices -->\n", "<!-- /table1-choices -->\n"
BASELINES_BEGIN, BASELINES_END = "<!-- table1-choices-baselines -->\n", "<!-- /table1-choices-baselines -->\n"


def table(found: dict[str, Any]) -> str:
    """Markdown: each row's trainings, best Recall@10 first; what the full form takes is marked."""
    names = ["row", "samples", "dropout", "half-life", "stride", "rate", "weight decay", "Recall@10", "NDCG@10"]
    rows = []
    for own in found["counts"]:
        rows.append([own["row"], *["-"] * 6, f"{own['recall_at_10']:.4f}", f"{own['ndcg_at_10']:.4f}"])
    order = list(dict.fromkeys(own["row"] for own in found["trials"]))
    for own in sorted(found["trials"], key=lambda one: (order.index(one["row"]), -one["recall_at_10"])):
        accuracy = [f"{own['recall_at_10']:.4f}", f"{own['ndcg_at_10']:.4f}"]
        rows.append([_name(own), *_told(own), *accuracy])
    return grid(names, rows)


def write_paper(paper: Path, found: dict[str, Any]) -> None:
    """Put the comparison between its marks."""
    text = found["text"].strip().split("\n\n", 1)
    section = (
        f"{BEGIN}### How the generative rows' training was chosen\n\nMade by `python -m evaluation table1 --choose "
        f"--paper`. {text[1]}\n\n{found['counts'][0]['cases']} cases, one seed ({found['seed']}), "
        f"{len(found['trials'])} trainings; the standard error of one Recall is about "
        f"{_error(found):.4f}, of a difference on the same cases less. Half-lives are in sessions, at first and at the "
        "end; a stride below a sample's length makes samples overlap; rates are the highest and, where it is not 5 % "
        f"of that, the last.\n\n{table(found)}\n**Bold** is what the full form takes.\n{END}"
    )
    put(paper, section, BEGIN, END)


def baselines_table(found: dict[str, Any]) -> str:
    """Markdown: each model by its epochs, each cascade by its widths; what the full form takes is marked."""
    names = ["model", "epochs, or items that leave the first two stages", "Recall@10", "NDCG@10", "cross-entropy"]
    rows = []
    for own in found["trials"]:
        cascade = "retrieved" in own
        what = f"{own['retrieved']}, {own['pre_ranked']}" if cascade else str(own["epochs"])
        taken = what == (f"{RETRIEVED}, {PRE_RANKED}" if cascade else str(FULL.epochs_of(own["row"])))
        measured = [f"{own[name]:.4f}" if name in own else "-" for name in ("recall_at_10", "ndcg_at_10", "loss")]
        rows.append([own["row"], f"**{what}**" if taken else what, *measured])
    return grid(names, rows)


def write_baselines(paper: Path, found: dict[str, Any]) -> None:
    """Put the comparison of the other rows between its marks."""
    text = found["text"].strip().split("\n\n", 1)
    section = (
        f"{BASELINES_BEGIN}### How the other rows' training was chosen\n\nMade by `python -m evaluation table1 "
        f"--choose-baselines --paper`. {text[1]}\n\n{found['trials'][0]['cases']} cases, one seed "
        f"({found['seed']}).\n\n{baselines_table(found)}\n**Bold** is what the full form takes.\n{BASELINES_END}"
    )
    put(paper, section, BASELINES_BEGIN, BASELINES_END)


def _name(own: dict[str, Any]) -> str:
    taken = FULL.tiger if own["row"].startswith("tiger") else FULL.onerec
    fields = {field.name for field in dataclasses.fields(GenerativeTraining)}
    same = {name: value for name, value in own.items() if name in fields} == dataclasses.asdict(taken)
    return f"**{own['row']}**" if same else str(own["row"])


def _told(own: dict[str, Any]) -> list[str]:
    default = GenerativeTraining(samples=1).final_share
    last = "" if own["final_share"] == default else f" to {own['final_share'] * own['learning_rate']:g}"
    half_lives = f"{own['half_life']:g} to {own['final_half_life']:g}"
    stride = str(own["stride"] or "-")
    rate = f"{own['learning_rate']:g}{last}"
    return [f"{own['samples']:,}", f"{own['dropout']:g}", half_lives, stride, rate, f"{own['weight_decay']:g}"]


def _error(found: dict[str, Any]) -> float:
    """Of a proportion, which a recall of few items about is."""
    return error_of_share(max(own["recall_at_10"] for own in found["trials"]), found["counts"][0]["cases"])
