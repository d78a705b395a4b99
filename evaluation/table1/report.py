"""The table from the rows' files: means and standard deviations over seeds, as JSON and as part of docs/paper.md."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from evaluation.pages import line, put, short, spread
from evaluation.table1 import protocol
from evaluation.table1.accuracy import VISITS
from evaluation.table1.guard import CONTROL, guard, guard_table
from evaluation.table1.jobs import JUDGE_FILE
from evaluation.table1.orderings import orderings, orderings_table
from evaluation.table1.rows import families
from onerec.errors import DependencyMissingError
from onerec.model.reward import OBJECTIVES

BEGIN, END = "<!-- table1 -->\n", "<!-- /table1 -->\n"
RECALL = "recall_at_10"
ACCURACY = (RECALL, "ndcg_at_10")
AT_VISITS = tuple(f"{VISITS}{name}" for name in ACCURACY)
BY_ROUND = {"onerec-l-ipa": "", CONTROL: ", control"}
"""Rows that are looked at after each round, and how the table calls their models."""


def summarise(place: Path, form: protocol.Form, seeds: Collection[int] | None = None) -> dict[str, Any]:
    """The table of a form's folder, of some seeds or of all. Raises DependencyMissingError where it has no row."""
    found = [json.loads(path.read_text()) for path in sorted(place.glob("*.*.json"))]
    files = [file for file in found if seeds is None or file["seed"] in seeds]
    if not files:
        raise DependencyMissingError(f"{place} holds no row.", "Run `python -m evaluation table1` first.")
    rows = {}
    for name in (row for family in families() for row in family.rows):
        own = [file for file in files if file["row"] == name]
        if own:
            rows[name] = _row(own)
    return {
        "protocol": protocol.described(form),
        "seeds": sorted({file["seed"] for file in files}),
        "commits": sorted({file["commit"] for file in files}),
        "machine": files[0]["machine"],
        "machines": _distinct(file["machine"] for file in files),
        "judge": json.loads((place / JUDGE_FILE).read_text()) if (place / JUDGE_FILE).is_file() else None,
        "guard": guard(files),
        "orderings": orderings(files),
        "rounds": {name: found for name in BY_ROUND if (found := _rounds(files, name))},
        "rows": rows,
    }


def _distinct(machines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each once, in the order in which they come."""
    return [json.loads(one) for one in dict.fromkeys(json.dumps(machine) for machine in machines)]


def _rounds(files: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """A row's rewards and accuracy by round, means and deviations over the seeds that have them."""
    own = [file["rounds"] for file in files if file["row"] == name and file.get("rounds")]
    return [
        {"round": t}
        | {
            model: {key: spread(rounds[t][model][key] for rounds in own) for key in ("reward", *OBJECTIVES)}
            for model in ("training", "judge")
        }
        | ({RECALL: spread(rounds[t][RECALL] for rounds in own)} if all(RECALL in rounds[t] for rounds in own) else {})
        for t in range(min(map(len, own), default=0))
    ]


def _row(files: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: {which: spread(file[name][which] for file in files) for which in ("mean", "max")} for name in OBJECTIVES
    }
    columns |= {name: spread(file[name] for file in files) for name in ACCURACY}
    of_visits = [file for file in files if AT_VISITS[0] in file]
    if of_visits:
        columns |= {name: spread(file[name] for file in of_visits) for name in AT_VISITS}
        columns["visits_seeds"] = sorted(file["seed"] for file in of_visits)
    return columns | {
        "seeds": sorted(file["seed"] for file in files),
        "parameters": files[0]["parameters"],
        "distinct_items": spread(file["distinct_items"] for file in files),
        "train_minutes": spread(file["seconds"] / 60 for file in files),
    }


def table(summary: dict[str, Any]) -> str:
    """Markdown: mean over max of each objective, and accuracy; ± is the deviation over seeds.

    A row that lacks a seed which another row has says so.
    """
    accuracies = ["Recall@10", "NDCG@10", "Recall@10 by visit", "NDCG@10 by visit"]
    head = ["row", "parameters", *(f"{name} mean / max" for name in OBJECTIVES), *accuracies, "seeds"]
    lines, full = [line(head), line(["---"] * len(head))], len(summary["seeds"])
    for name, row in summary["rows"].items():
        rewards = [f"{_figure(row[key]['mean'])} / {_figure(row[key]['max'])}" for key in OBJECTIVES]
        accuracy = [_figure(row[key]) for key in ACCURACY] + [_by_visit(row, key) for key in AT_VISITS]
        seeds = f"{len(row['seeds'])}" + (f" of {full}" if len(row["seeds"]) < full else "")
        lines.append(line([name, _count(row["parameters"]), *rewards, *accuracy, seeds]))
    return "\n".join(lines) + "\n"


def quality_table(judge: dict[str, Any] | None) -> str:
    """Markdown: how good the judge is."""
    if judge is None or not judge["sessions"]:
        return ""
    within = judge["within_session"]
    rows = [
        ("watch time of a session (swt)", "Spearman", judge["swt"]["spearman"], "0"),
        ("share of long views of a session (vtr)", "Spearman", judge["vtr"]["spearman"], "0"),
        ("long view of an exposure", f"AUC, {judge['vtr']['positives']} positives", judge["vtr"]["auc"], "0.5"),
        ("any like in a session (ltr)", f"AUC, {judge['ltr']['positives']} positives", judge["ltr"]["auc"], "0.5"),
        ("any follow in a session (wtr)", f"AUC, {judge['wtr']['positives']} positives", judge["wtr"]["auc"], "0.5"),
        (
            "exposures of a session, long before not",
            f"ordered pairs, {within['sessions']} sessions",
            within["ordered"],
            "0.5",
        ),
        ("the same by the item's share of long views alone", "ordered pairs", within["by_long_view_rate"], "0.5"),
        ("the same by counts and length, logistic", "ordered pairs", within["by_logistic_model"], "0.5"),
    ]
    lines = [line(["of the judge's users from 1 May on", "measure", "judge", "chance"]), line(["---"] * 4)]
    lines += [line([what, how, "-" if value is None else f"{value:.4f}", chance]) for what, how, value, chance in rows]
    return (
        f"\n### How good the judge is\n\nOn {judge['sessions']} real sessions that nothing was trained with. The last "
        "two lines know the items and no user: users, and what they are like on that day, are the same for all pairs "
        "of one session, so they mark about what is to be had of this order.\n\n" + "\n".join(lines) + "\n"
    )


def rounds_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: rewards and accuracy by round, of IPA and of the control."""
    if not found:
        return ""
    head = ["model", "reward", *OBJECTIVES, "judge's reward", *(f"judge's {name}" for name in OBJECTIVES), "Recall@10"]
    lines = [line(head), line(["---"] * len(head))]
    for name, rounds in found.items():
        for own in rounds:
            if own["round"] == 0 and name != next(iter(found)):
                continue  # the same M_0
            cells = [_figure(own[model][key]) for model in ("training", "judge") for key in ("reward", *OBJECTIVES)]
            recall = _figure(own[RECALL]) if RECALL in own else "-"
            lines.append(line([f"M_{own['round']}{BY_ROUND[name]}", *cells, recall]))
    return (
        "\n### IPA by round\n\nMeans over candidates and cases, by the training reward model and by the judge; the "
        "reward is the change since M_0 in standard deviations of M_0's candidates, weighed as for pairs. The control "
        "takes as many steps without pairs.\n\n" + "\n".join(lines) + "\n"
    )


def write_paper(paper: Path, summary: dict[str, Any], image: Path | None = None) -> None:
    """Put protocol and table between their marks in docs/paper.md; makes the file where there is none.

    `image` is IPA's rounds.
    """
    form = summary["protocol"]
    text = textwrap.dedent(form["text"]).strip()
    shown = f"\n![IPA and the control by round](../evaluation/results/{image.name})\n" if image else ""
    where = "; ".join(_machine(one) for one in summary["machines"])
    section = (
        f"{BEGIN}## Table 1 on KuaiRand-Pure\n\nMade by `python -m evaluation table1 --paper`; form `{form['name']}`: "
        f"{form['cases']} cases at most, {form['candidates']} candidates, seeds "
        f"{', '.join(map(str, summary['seeds']))}, commit {short(summary['commits'])}, on "
        f"{where}.{_caution(form)}\n\n{text}\n\n{table(summary)}"
        f"{quality_table(summary['judge'])}{guard_table(summary['guard'])}"
        f"{orderings_table(summary['orderings'])}{rounds_table(summary['rounds'])}{shown}{END}"
    )
    put(paper, section, BEGIN, END)


def _caution(form: dict[str, Any]) -> str:
    """What a table of a smaller form does not say."""
    if not form["reduced_from_full"]:
        return ""
    less = [
        f"{name.replace('_', ' ')} {own} instead of {full if full is not None else 'all'}"
        for name, (own, full) in form["reduced_from_full"].items()
    ]
    known = (
        "These are figures of the quick form: models trained for seconds on a slice of the users, and a judge trained "
        "alike. They show that these rows run, not which one is better."
        if form["name"] == protocol.QUICK.name
        else "These are figures of the short form: all rows, but fewer users and less training than the full form has."
        " Differences within the spread, or within a few thousandths where there is one seed, say nothing."
    )
    return f"\n\n{known} Against the full form: {', '.join(less)}."


def _machine(machine: dict[str, Any]) -> str:
    gpu = f"{machine['device']} with " if "device" in machine else ""
    return f"{gpu}{machine['cores']} cores of {machine['cpu']}, torch {machine['torch']}"


def _figure(pair: list[float]) -> str:
    mean, deviation = pair
    return f"{mean:.4f}" + (f" ± {deviation:.4f}" if deviation >= 0.00005 else "")


def _by_visit(row: dict[str, Any], key: str) -> str:
    """Says of how many seeds it is, where some of the row's were made before there was such a column."""
    if key not in row:
        return "-"
    made, all_of = len(row["visits_seeds"]), len(row["seeds"])
    return _figure(row[key]) + (f" ({made} of {all_of} seeds)" if made < all_of else "")


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f}M" if parameters else "-"
