"""IPA by round beside the control, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.pictures import picture, save
from evaluation.table1.report import BY_ROUND, RECALL

REWARDS = {"training": "reward model of the pairs", "judge": "judge"}
STYLES = {"training": "-", "judge": "--"}


def draw(rounds: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Rewards since M_0, in standard deviations of its candidates, and Recall@10 by round; ± over seeds, as PNG."""
    figure, ((rewards, recalls),) = picture(1, 2, (4.6, 3.4))
    for colour, (name, own) in enumerate(rounds.items()):
        who, steps = ("control" if BY_ROUND[name] else "IPA"), [one["round"] for one in own]
        for model, said in REWARDS.items():
            mean, deviation = zip(*(one[model]["reward"] for one in own), strict=True)
            style = {"linestyle": STYLES[model], "color": f"C{colour}", "label": f"{who}, {said}"}
            rewards.errorbar(steps, mean, deviation, marker="o", capsize=2, **style)
        if all(RECALL in one for one in own):
            mean, deviation = zip(*(one[RECALL] for one in own), strict=True)
            recalls.errorbar(steps, mean, deviation, marker="o", capsize=2, color=f"C{colour}", label=who)
    rewards.set_ylabel("reward since M_0, in deviations")
    recalls.set_ylabel("Recall@10")
    for axes in (rewards, recalls):
        axes.set(xlabel="round", xticks=range(max(map(len, rounds.values()))))
        axes.legend(fontsize="small")
    save(figure, path)
