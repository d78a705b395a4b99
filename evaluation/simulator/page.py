"""How well the simulated users foretell people, as a part of docs/paper.md and as a picture."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from evaluation.pages import grid, put
from evaluation.pictures import picture, save

BEGIN, END = "<!-- simulator -->\n", "<!-- /simulator -->\n"
WHO = {"simulator": "simulator", "item_mean": "item's mean", "user_mean": "user's mean", "global_mean": "mean"}
ANSWERS = {"long_view": "long view", "like": "like", "follow": "follow", "stay": "stays"}
RARE = ("like", "follow")
"""Drawn on logarithmic axes."""
DRIFT_AND_FATIGUE = {
    "affinity": "drift: cosine of the item and the interests of the moment",
    "author_repeats": "fatigue: recent items of the author, log(1 + count)",
    "tag_share": "fatigue: share of recent items with its tags",
    "log_position": "fatigue: items of the session so far, log(1 + count)",
}

BASELINES = (
    "Log loss in nats, lower is better; the item's mean is of the fitted half, the user's of the user's own past, both "
    "drawn towards the mean as by ten exposures."
)
WIDTH = 120


def draw(result: dict[str, Any], path: Path) -> None:
    """Calibration by answer: of each tenth of the exposures the predicted and the true rate."""
    figure, (row,) = picture(1, len(ANSWERS), (3.2, 3.2))
    for axes, (name, said) in zip(row, ANSWERS.items(), strict=True):
        predicted, true = zip(*result["heads"][name]["deciles"], strict=True)
        ends = [min(*predicted, *true), max(*predicted, *true)]
        axes.plot(ends, ends, color="grey", linewidth=0.8)
        axes.plot(predicted, true, marker="o")
        axes.set(title=said, xlabel="predicted", ylabel="of people")
        if name in RARE:
            axes.set(xscale="log", yscale="log")
            axes.minorticks_off()
    save(figure, path)


def write_paper(paper: Path, result: dict[str, Any], image: Path) -> None:
    """Put tables and picture between their marks."""
    count = result["exposures"]
    made = (
        f"Made by `python -m evaluation simulator check --paper`; form `{result['form']}`, seed {result['seed']}, "
        f"commit {result['commit'][:7]}, on {result['machine']['cpu']}. Users are split by a hash of their ids: the "
        f"simulator is fitted on the exposures of one half from 25 April on ({count['fitted']:,}) and foretells each "
        f"of the other half's ({count['held_out']:,}) from what came before it."
    )
    parts = [
        f"{BEGIN}## Simulated users: how well they foretell people",
        fill(made, WIDTH),
        heads_table(result).rstrip(),
        fill(BASELINES, WIDTH),
        f"![Calibration on users it was not fitted on](../evaluation/results/{image.name})",
        draws_table(result).rstrip(),
        strengths_table(result).rstrip(),
        "Log-odds for one more of each; what is above zero is no fatigue.",
        "\n".join(f"- {one}" for one in result["weaknesses"]),
    ]
    section = "\n\n".join(parts) + f"\n{END}"
    put(paper, section, BEGIN, END)


def heads_table(result: dict[str, Any]) -> str:
    """Markdown: log loss and AUC of each answer beside baselines."""
    head = ["answer", "rate", *(f"{figure}: {said}" for figure in ("log loss", "AUC") for said in WHO.values())]
    rows = []
    for name, said in ANSWERS.items():
        own = result["heads"][name]
        losses = [f"{own['log_loss'][who]:.4f}" for who in WHO]
        rows.append([said, f"{own['rate']:.4f}", *losses, *(f"{own['auc'][who]:.3f}" for who in WHO)])
    return grid(head, rows)


def draws_table(result: dict[str, Any]) -> str:
    """Markdown: watch times and lengths of sessions as drawn, beside those of people."""
    watch, lengths = result["watch_time_s"], result["session_length"]
    rows = [["watch time of an exposure, s: mean", *_pair(watch["mean"], ".2f")]]
    rows += [[f"its quantile {q}", *_pair(pair, ".2f")] for q, pair in watch["quantiles"].items()]
    names = [*(f"sessions of {n}" for n in ("one item", "2 items", "3 items", "4 items")), "longer ones"]
    pairs = zip(lengths["simulator"], lengths["log"], strict=True)
    rows += [[name, *_pair(pair, ".4f")] for name, pair in zip(names, pairs, strict=True)]
    return grid(["as drawn", "simulator", "people"], rows)


def strengths_table(result: dict[str, Any]) -> str:
    """Markdown: how strongly drift and fatigue act on each answer."""
    found = result["coefficients"]
    rows = [[said, *(f"{found[name][key]:+.3f}" for name in ANSWERS)] for key, said in DRIFT_AND_FATIGUE.items()]
    return grid(["what acts", *ANSWERS.values()], rows)


def _pair(pair: Any, form: str) -> list[str]:
    return [format(value, form) for value in pair]
