"""Rows are trained, judged, kept and laid out; orderings that must hold do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.pages import spread
from evaluation.table1 import picture, published, report
from evaluation.table1.candidates import Recommended
from evaluation.table1.generative import recommend_sessions
from evaluation.table1.guard import guard, guard_table
from evaluation.table1.ids import named, with_kept_ids
from evaluation.table1.kept import Context, onerec_of, reward_of
from evaluation.table1.orderings import orderings, orderings_table
from evaluation.table1.preference import RECIPES, Aligner, mine
from evaluation.table1.run import run
from evaluation.table1.world import Cases, Side, World
from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError
from onerec.model.onerec import OneRec
from onerec.model.reward import OBJECTIVES, RewardModel
from onerec.model.trie import Trie
from tests.evaluation.table1.small_world import CONFIG, FORM, small_world

ROWS = (
    "popularity",
    "cooccurrence",
    "cascade-sasrec",
    "tiger-s",
    "tiger-rqvae-s",
    "onerec-l-lazy",
    "onerec-l",
    "onerec-l-ntp",
    "onerec-l-sdpo",
    "onerec-l-ecpo",
    "onerec-l-gbpo",
    "onerec-l-ipa",
)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table1")
    return run(FORM, [1], folder, only=ROWS, config=CONFIG, load_world=lambda *_: world)


def figures(place: Path, row: str) -> Any:
    return json.loads((place / f"{row}.1.json").read_text())


def test_cooccurrence_knows_what_popularity_does_not(place: Path) -> None:
    assert figures(place, "cooccurrence")["recall_at_10"] > figures(place, "popularity")["recall_at_10"] + 0.2


def test_every_row_is_measured_by_visit_too(place: Path) -> None:
    own, popular = (figures(place, row)["visits_recall_at_10"] for row in ("cooccurrence", "popularity"))
    assert own > popular + 0.2
    for row in ROWS:
        assert 0 <= figures(place, row)["visits_ndcg_at_10"] <= 1
        assert figures(place, row)["visits"] == figures(place, "popularity")["visits"] > 0


def test_columns_are_probabilities_and_the_greatest_candidate_is_not_below_the_mean(place: Path) -> None:
    for row in ROWS:
        own = figures(place, row)
        for name in OBJECTIVES:
            assert 0 < own[name]["mean"] <= own[name]["max"] < 1
        assert own["sessions_missing"] == 0


def test_rows_that_are_there_are_not_computed_again(place: Path) -> None:
    def refuse(*_: object) -> World:
        raise AssertionError("the log is read again")

    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    assert run(FORM, [1], place.parent, only=ROWS, config=CONFIG, load_world=refuse) == place
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before


def test_a_missing_row_alone_is_computed_and_gives_the_same(place: Path, world: World) -> None:
    kept = figures(place, "onerec-l-sdpo")
    (place / "onerec-l-sdpo.1.json").unlink()
    run(FORM, [1], place.parent, only=ROWS, config=CONFIG, load_world=lambda *_: world)
    again = figures(place, "onerec-l-sdpo")
    assert {name: again[name] for name in OBJECTIVES} == {name: pytest.approx(kept[name]) for name in OBJECTIVES}


def test_a_run_goes_on_from_published_rows_and_their_judge(place: Path, world: World, tmp_path: Path) -> None:
    published.publish(place, tmp_path / "published")
    (tmp_path / "published" / "popularity.1.json").unlink()
    kept = figures(place, "cooccurrence") | {"commit": "of old"}
    (tmp_path / "published" / "cooccurrence.1.json").write_text(json.dumps(kept))
    rows = ("popularity", "cooccurrence")
    later = run(
        FORM,
        [1],
        tmp_path,
        only=rows,
        config=CONFIG,
        load_world=lambda *_: world,
        onto=tmp_path / "published",
    )
    assert later != place
    assert figures(later, "cooccurrence")["commit"] == "of old"
    made, wanted = figures(later, "popularity"), figures(place, "popularity")
    assert {name: made[name] for name in OBJECTIVES} == {name: wanted[name] for name in OBJECTIVES}
    assert not (later / "onerec-l.1.safetensors").exists(), "no model was needed"
    published.publish(later, tmp_path / "published")
    assert figures(tmp_path / "published", "popularity") == made


def test_published_models_are_asked_by_the_ids_they_know_whatever_is_fitted_here(
    place: Path, world: World, tmp_path: Path
) -> None:
    """On another processor the fit gives other ids."""
    published.publish(place, tmp_path / "published")
    for row in ("popularity", "tiger-rqvae-s"):
        (tmp_path / "published" / f"{row}.1.json").unlink()

    def elsewhere(side: Side) -> Side:
        codes = np.roll(side.catalogue.codes, 1, axis=0)
        return dataclasses.replace(side, catalogue=named(side.catalogue, codes, CONFIG.codes))

    other = dataclasses.replace(world, rows=elsewhere(world.rows), judge=elsewhere(world.judge))
    later = run(
        FORM,
        [1],
        tmp_path,
        only=("popularity", "tiger-rqvae-s"),
        config=CONFIG,
        load_world=lambda *_: other,
        onto=tmp_path / "published",
    )
    for row in ("popularity", "tiger-rqvae-s"):
        made, wanted = figures(later, row), figures(place, row)
        assert {name: made[name] for name in OBJECTIVES} == {name: pytest.approx(wanted[name]) for name in OBJECTIVES}


def test_ids_of_other_items_are_refused(world: World, tmp_path: Path) -> None:
    with_kept_ids(world, tmp_path, CONFIG)
    fewer = dataclasses.replace(
        world.judge,
        catalogue=dataclasses.replace(
            world.judge.catalogue, trie=Trie.build(torch.from_numpy(world.judge.catalogue.codes[1:]), CONFIG.codes)
        ),
    )
    with pytest.raises(CheckFailedError, match="are of other items"):
        with_kept_ids(dataclasses.replace(world, judge=fewer), tmp_path, CONFIG)


def test_published_rows_without_a_column_are_made_again(place: Path, world: World, tmp_path: Path) -> None:
    published.publish(place, tmp_path / "published")
    for row in ("popularity", "cooccurrence"):
        lacks = {name: value for name, value in figures(place, row).items() if not name.startswith("visits")}
        (tmp_path / "published" / f"{row}.1.json").write_text(json.dumps(lacks | {"commit": "of old"}))
    later = run(
        FORM,
        [1],
        tmp_path,
        only=("popularity",),
        config=CONFIG,
        load_world=lambda *_: world,
        onto=tmp_path / "published",
    )
    made = figures(later, "popularity")
    assert made["visits_recall_at_10"] == figures(place, "popularity")["visits_recall_at_10"]
    published.take_over(tmp_path / "published", later)
    assert figures(later, "popularity") == made, "the next run does not begin anew"
    assert figures(later, "cooccurrence")["commit"] == "of old"
    summary = report.summarise(later, FORM)
    lines = {line.split(" | ")[0]: line for line in report.table(summary).splitlines()}
    assert " | - | - | 1 |" in lines["| cooccurrence"]
    assert " - " not in lines["| popularity"].removeprefix("| popularity | - |")
    of_counts = next(one for one in summary["orderings"] if one["below"] == "cooccurrence")
    assert "visits_recall_at_10" not in of_counts, "one of the two has no such column"


def test_rows_of_two_judges_are_not_mixed(place: Path, tmp_path: Path) -> None:
    published.publish(place, tmp_path / "published")
    other = tmp_path / "other"
    other.mkdir()
    for name in published.JUDGE:
        (other / name).write_bytes((place / name).read_bytes() + b" ")
    with pytest.raises(CheckFailedError, match="have another judge"):
        published.publish(other, tmp_path / "published")
    with pytest.raises(
        DependencyMissingError, match=r"no judge\.json and no judge\.safetensors and no ids\.safetensors"
    ):
        published.take_over(tmp_path, other)


def test_an_unknown_row_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no row sasrek"):
        run(FORM, [1], tmp_path, only=["sasrek"], config=CONFIG)


def test_table_and_paper(place: Path, tmp_path: Path) -> None:
    summary = report.summarise(place, FORM)
    assert list(summary["rows"]) == list(ROWS)
    assert summary["seeds"] == [1]
    paper = tmp_path / "paper.md"
    paper.write_text("# Before\n\nOther text.\n")
    picture.draw(summary["rounds"], tmp_path / "table1.png")
    report.write_paper(paper, summary, tmp_path / "table1.png")
    first = paper.read_text()
    report.write_paper(paper, summary, tmp_path / "table1.png")
    assert paper.read_text() == first
    assert first.startswith("# Before\n\nOther text.\n\n<!-- table1 -->\n")
    parts = ("| onerec-l-ipa |", "| any like in a session (ltr) | AUC", "| onerec-l-sdpo | ", "| M_2 | ")
    assert (tmp_path / "table1.png").read_bytes().startswith(b"\x89PNG")
    for part in (*parts, "| M_2, control | ", "(../evaluation/results/table1.png)"):
        assert part in first
    with pytest.raises(DependencyMissingError, match="holds no row"):
        report.summarise(tmp_path, dataclasses.replace(FORM, cases=1))


def test_rows_that_lack_a_seed_say_so(place: Path, tmp_path: Path) -> None:
    for path in place.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    again = figures(place, "popularity") | {
        "seed": 2,
        "machine": {"cpu": "other", "cores": 4, "torch": "2", "device": "GPU"},
    }
    (tmp_path / "popularity.2.json").write_text(json.dumps(again))
    summary = report.summarise(tmp_path, FORM)
    lines = {line.split(" | ")[0]: line for line in report.table(summary).splitlines()}
    assert lines["| popularity"].endswith(" | 2 |")
    assert "seeds)" not in lines["| popularity"]
    lacks = {name: value for name, value in again.items() if not name.startswith("visits")}
    (tmp_path / "popularity.2.json").write_text(json.dumps(lacks))
    assert report.table(report.summarise(tmp_path, FORM)).count(" (1 of 2 seeds) |") == 2
    assert lines["| cooccurrence"].endswith(" | 1 of 2 |")
    assert [machine.get("device") for machine in summary["machines"]] == [None, "GPU"]
    assert report.summarise(tmp_path, FORM, [1])["seeds"] == [1]


@pytest.mark.parametrize("row", ["onerec-l-ipa", "onerec-l-ntp"])
def test_ipa_and_the_control_are_looked_at_after_each_round(place: Path, row: str) -> None:
    own = figures(place, row)
    assert [one["round"] for one in own["rounds"]] == [0, 1, 2]
    for model in ("training", "judge"):
        assert own["rounds"][0][model]["reward"] == 0.0
        assert own["rounds"][2][model]["reward"] != 0.0
    first, last = own["rounds"][0], own["rounds"][-1]
    assert first["judge"]["swt"] == pytest.approx(figures(place, "onerec-l")["swt"]["mean"], abs=1e-6)
    assert last["judge"]["swt"] == pytest.approx(own["swt"]["mean"], abs=1e-6)
    assert first["recall_at_10"] == figures(place, "onerec-l")["recall_at_10"]
    assert last["recall_at_10"] == own["recall_at_10"]
    assert "rounds" not in figures(place, "onerec-l-sdpo")


def test_the_control_takes_the_same_steps_whether_it_is_looked_at_or_not(place: Path, world: World) -> None:
    """Looking at it on the way must not change it: dropout and samples are drawn as without."""
    at = Context(world, FORM, CONFIG, 1, place)
    aligner = Aligner(onerec_of(at), reward_of(at), world, FORM, 1)
    seen = list[Recommended]()
    looked = aligner.aligned(RECIPES["ntp"], lambda model: seen.append(recommend_sessions(model, world, FORM)))
    assert len(seen) == FORM.rounds
    alone = aligner.aligned(dataclasses.replace(RECIPES["dpo"], weight=0.0))
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(looked.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_row_that_loses_recall_against_the_control_is_marked() -> None:
    def files(row: str, *recalls: float) -> list[dict[str, Any]]:
        return [{"row": row, "seed": seed, "recall_at_10": recall} for seed, recall in enumerate(recalls)]

    control = files("onerec-l-ntp", 0.10, 0.12)
    found = guard([*control, *files("onerec-l-dpo", 0.10, 0.115), *files("onerec-l-ipa", 0.1, 0.119)])
    fallen = found["onerec-l-dpo"]["recall_at_10"]
    assert fallen["change"] == pytest.approx(-0.0227, abs=1e-4)
    assert fallen["standard_error"] == pytest.approx(0.0227, abs=1e-4)
    assert fallen["falls"] is True
    assert found["onerec-l-ipa"]["recall_at_10"]["falls"] is False
    assert list(found) == ["onerec-l-dpo", "onerec-l-ipa"]
    assert guard([*control, *files("onerec-l-dpo", 0.10)])["onerec-l-dpo"]["recall_at_10"]["seeds"] == [0]


def test_the_guard_is_by_visit_too_of_the_seeds_that_have_that_column() -> None:
    control = [
        {"row": "onerec-l-ntp", "seed": 1, "recall_at_10": 0.1, "visits_recall_at_10": 0.2},
        {"row": "onerec-l-ntp", "seed": 2, "recall_at_10": 0.1},
    ]
    dpo = [file | {"row": "onerec-l-dpo"} for file in control]
    dpo[0] = dpo[0] | {"visits_recall_at_10": 0.19}
    found = guard([*control, *dpo])["onerec-l-dpo"]
    assert found["visits_recall_at_10"]["change"] == pytest.approx(-0.05)
    assert found["visits_recall_at_10"]["falls"] is True
    assert found["visits_recall_at_10"]["seeds"] == [1]
    assert found["recall_at_10"]["seeds"] == [1, 2]
    table = guard_table({"onerec-l-dpo": found})
    assert "| onerec-l-dpo | +0.0% ± 0.0 holds | -5.0% ± " in table


def test_orderings_are_of_the_same_seeds_and_say_where_these_do_not_tell() -> None:
    def files(row: str, values: dict[int, float], recall: float) -> list[dict[str, Any]]:
        means = {name: {"mean": 0.5} for name in OBJECTIVES}
        return [
            means | {"row": row, "seed": seed, "recall_at_10": recall, "swt": {"mean": value}}
            for seed, value in values.items()
        ]

    found = orderings(
        [
            *files("onerec-l", {1: 0.60, 2: 0.61, 3: 0.62, 4: 0.9}, 0.1),
            *files("tiger-l", {1: 0.50, 2: 0.52, 3: 0.52}, 0.1),
            *files("onerec-s", {1: 0.65, 2: 0.55, 3: 0.60}, 0.1),
        ]
    )
    assert [(one["above"], one["below"], one["seeds"]) for one in found] == [
        ("onerec-l", "tiger-l", [1, 2, 3]),
        ("onerec-l", "onerec-s", [1, 2, 3]),
    ]
    assert found[0]["swt"] == [pytest.approx(0.0967, abs=1e-4), pytest.approx(0.0033, abs=1e-4)]
    text = orderings_table(found)
    assert "| onerec-l | tiger-l | yes | +0.0967 ± 0.0033 yes | +0.0000 ± 0.0000 open |" in text
    assert "| onerec-l | onerec-s | yes | +0.0100 ± 0.0321 open |" in text


def test_pairs_are_made_of_users_who_are_no_cases(world: World) -> None:
    count = len(world.rows.past)
    others = dataclasses.replace(world, cases=Cases(np.arange(8, count), [set() for _ in range(8, count)]))
    form = dataclasses.replace(FORM, preference_users=20)
    mined = mine(OneRec(CONFIG).eval(), RewardModel(CONFIG).eval(), others, form, 1)
    found = {pair.history.items.tobytes() for pair in mined}
    assert found == {world.rows.history(row).items.tobytes() for row in range(8)}


def test_spread_over_seeds() -> None:
    assert spread([1.0, 3.0]) == [2.0, pytest.approx(2**0.5)]
    assert spread([1.0]) == [1.0, 0.0]
