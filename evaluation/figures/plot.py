"""The figures as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.figures.confidence import MODELS
from evaluation.figures.ratio import rewards
from evaluation.pictures import picture, save
from onerec.model.reward import OBJECTIVES

NAMES = {"before": "before", "ntp": "same steps, no pairs", "ipa": "after IPA"}


def draw(found: dict[str, Any], folder: Path, suffix: str) -> list[Path]:
    """A PNG of each figure that is there, figure4<suffix>.png and so on; their paths.

    Raises DependencyMissingError without matplotlib.
    """
    drawings = {"figure4": ("ratio", _ratio), "figure5": ("confidence", _confidence), "figure6": ("scale", _scale)}
    paths = []
    for name, (key, make) in drawings.items():
        if key in found:
            paths.append(folder / f"{name}{suffix}.png")
            save(make(found), paths[-1])
    return paths


def _ratio(found: dict[str, Any]) -> Any:
    points = found["ratio"]
    percent = [100 * point["ratio"] for point in points]
    figure, ((left, right),) = picture(1, 2)
    for model, label in (("training", "training reward model"), ("judge", "judge")):
        left.plot(percent, rewards(points, model), marker="o", label=label)
    left.set_ylabel("reward against r = 0, in deviations")
    left.legend()
    for name in OBJECTIVES:
        first = points[0]["judge"][name][0]
        right.plot(percent, [100 * (point["judge"][name][0] / first - 1) for point in points], marker="o", label=name)
    right.set_ylabel("judge, % against r = 0")
    right.legend()
    for axes in (left, right):
        axes.set_xlabel("samples that bring a pair, %")
    return figure


def _confidence(found: dict[str, Any]) -> Any:
    example = found["confidence"]["example"]["levels"]
    figure, grid = picture(len(MODELS), len(example))
    for level, own in enumerate(example):
        top = 1.1 * max(max(own["probabilities"][name]) for name in MODELS)
        for row, name in enumerate(MODELS):
            axes, values = grid[row][level], own["probabilities"][name]
            colours = ["C3" if place == own["marked"] else "C0" for place in range(len(values))]
            axes.bar(range(len(values)), values, color=colours)
            axes.set_ylim(0, top)
            entropy = found["confidence"]["levels"][name][level]["entropy"]
            axes.set_title(f"{NAMES[name]}, level {level + 1}; mean entropy {entropy:.2f}", fontsize=9)
    return figure


def _scale(found: dict[str, Any]) -> Any:
    points, law = found["scale"], found["law"]
    millions = [point["parameters"] / 1e6 for point in points]
    figure, ((left, right),) = picture(1, 2)
    left.plot(millions, [point["loss"] for point in points], "o", label="measured")
    if law:
        fitted = [law["E"] + law["A"] / point["parameters"] ** law["alpha"] for point in points]
        left.plot(millions, fitted, "--", label=f"{law['E']:.2f} + {law['A']:.3g} / N^{law['alpha']:.2f}")
    left.set_ylabel("loss on unseen users, nats a code")
    left.legend()
    for level in range(len(points[0]["accuracy_by_level"])):
        values = [point["accuracy_by_level"][level] for point in points]
        right.plot(millions, values, marker="o", label=f"level {level + 1}")
    right.set_ylabel("accuracy")
    right.legend()
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("parameters, millions")
    return figure
