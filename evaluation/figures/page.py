"""The figures as a part of docs/paper.md: pictures, what they show in numbers, and how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.figures import confidence, ratio, scale
from evaluation.figures.plot import NAMES
from evaluation.figures.ratio import rewards
from evaluation.pages import line, put, short
from evaluation.table1.protocol import QUICK, SHORT
from onerec.model.reward import OBJECTIVES

SIZE = {
    QUICK.name: "the quick form: models of seconds on a slice of the users, to show that the command runs",
    SHORT.name: "the short form: 4,000 users of each side and less training than the full form has",
}


def write_paper(paper: Path, found: dict[str, Any], pictures: list[Path]) -> None:
    """Put the figures between the marks of their form."""
    form = found["form"]
    mark = "figures" + (f"-{form['table']}" if form["table"] in SIZE else "")
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
    tables = {"figure4": ("ratio", _ratio), "figure5": ("confidence", _confidence), "figure6": ("scale", _scale)}
    own = ", ".join(name.removeprefix("figure") for name, (key, _) in tables.items() if key in found)
    parts = [
        f"{begin}## Figure{'s' if ', ' in own else ''} {own}, {form['table']} form\n\n"
        "Made by `python -m evaluation figures --paper`; "
        f"{SIZE.get(form['table'], 'the full form')}, seed {form['seed']}, commit {_commits(found)}. "
        "Models, users, cases and judge are those of Table 1 above.\n"
    ]
    for name, (key, text) in tables.items():
        if key in found:
            picture = next(path for path in pictures if path.name.startswith(name))
            title, body = text(found)
            parts.append(f"\n### {title}\n\n![{title}](../evaluation/results/{picture.name})\n\n{body}")
    put(paper, "".join([*parts, end]), begin, end)


def _commits(found: dict[str, Any]) -> str:
    points = [*found.get("ratio", []), *found.get("scale", [])]
    points += [found["confidence"]] if "confidence" in found else []
    return short(point["commit"] for point in points)


def _ratio(found: dict[str, Any]) -> tuple[str, str]:
    points = found["ratio"]
    head = ["r", "reward", "judge's reward", *(f"judge's {name}" for name in OBJECTIVES), "Recall@10"]
    lines = [line(head), line(["---"] * len(head))]
    for point, training, judge in zip(points, rewards(points, "training"), rewards(points, "judge"), strict=True):
        cells = [f"{point['judge'][name][0]:.4f}" for name in OBJECTIVES]
        share = f"{100 * point['ratio']:.0f} %"
        lines.append(line([share, f"{training:+.3f}", f"{judge:+.3f}", *cells, f"{point['recall_at_10']:.4f}"]))
    note = (
        "\nRewards are changes since r = 0 in standard deviations of its candidates, weighed as for pairs; the first "
        "is by the reward model that made the pairs. Pairs are mined once here; mined for each "
        "sample, as the paper's server does, 5 % costs five times the candidates of 1 %.\n"
    )
    return "Figure 4: ratio of preference samples", f"{_text(ratio)}\n\n" + "\n".join(lines) + "\n" + note


def _confidence(found: dict[str, Any]) -> tuple[str, str]:
    own = found["confidence"]
    head = ["model", "level", "entropy, nats", "codes to choose from", "marked code", "marked code is likeliest"]
    lines = [line(head), line(["---"] * len(head))]
    for name, levels in own["levels"].items():
        for number, level in enumerate(levels, 1):
            figures = [f"{level['entropy']:.3f}", f"{level['choices']:.1f}", f"{level['marked_probability']:.4f}"]
            lines.append(line([NAMES[name], str(number), *figures, f"{100 * level['marked_first']:.1f} %"]))
    note = (
        f"\nMeans over {own['cases']} cases. The picture is of one user, whose marked item (red) gained the median of "
        "all by IPA.\n"
    )
    return "Figure 5: confidence by level", f"{_text(confidence)}\n\n" + "\n".join(lines) + "\n" + note


def _scale(found: dict[str, Any]) -> tuple[str, str]:
    points, law = found["scale"], found["law"]
    levels = range(1, len(points[0]["accuracy_by_level"]) + 1)
    head = ["width", "parameters", "loss", *(f"loss {level}" for level in levels), *(f"accuracy {x}" for x in levels)]
    lines = [line(head), line(["---"] * len(head))]
    for point in points:
        values = [point["loss"], *point["loss_by_level"]]
        cells = [f"{value:.3f}" for value in values] + [f"{value:.4f}" for value in point["accuracy_by_level"]]
        lines.append(line([str(point["width"]), f"{point['parameters'] / 1e6:.3f}M", *cells]))
    note = f"\n{points[0]['samples']} samples each, measured on {points[0]['positives']} positives."
    if law:
        note += (
            f" Fitted: L(N) = {law['E']:.3f} + {law['A']:.4g} / N^{law['alpha']:.3f}, residual {law['residual']:.4f}."
        )
    return "Figure 6: model scale", f"{_text(scale)}\n\n" + "\n".join(lines) + "\n" + note + "\n"


def _text(module: Any) -> str:
    """What a module says of its figure, without the headline."""
    return str(module.__doc__).split("\n\n", 1)[1].strip()
