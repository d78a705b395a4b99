"""Sampling draws from the model: frequencies, temperature, legality."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.engine.search import Engine
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import Memory, OneRec
from tests.inference import toys
from tests.inference.test_search import TOLERANCE, all_items, teacher_forced

DRAWS = 20_000


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_frequencies_of_first_and_second_item() -> None:
    config = toys.config(session_items=2, codes=3)
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 9)
    history = toys.histories(config, catalogue, [4])
    generator = torch.Generator().manual_seed(7)
    found = Engine(model).sample(history, catalogue, DRAWS, generator=generator)
    first = all_items(model, history, catalogue)[0].exp()
    counts = found.sessions[0, :, 0].bincount(minlength=9).float()
    # 8 degrees of freedom: 99.9 % of samples stay below 26.1
    assert chi_square(counts, first) < 26.1
    assert chi_square(counts, torch.full((9,), 1 / 9)) > 100, "an even distribution is told apart"
    # the second item follows the model given the first; codes that lead to the first one only are closed
    item = int(first.argmax())
    second = found.sessions[0, found.sessions[0, :, 0] == item, 1].bincount(minlength=9).float()
    wanted = given_first(model, catalogue, history, item)
    open_items = wanted > 0
    assert float(second[~open_items].sum()) == 0
    assert chi_square(second[open_items], wanted[open_items]) < 24.3  # 7 degrees of freedom


def given_first(model: OneRec, catalogue: CatalogueSnapshot, history: HistoryBatch, item: int) -> Tensor:
    """Probability [N] of each second item, drawn code by code where the first item's own codes are closed."""
    items, levels = catalogue.codes.shape
    sessions = torch.stack([torch.full((items,), item), torch.arange(items)], dim=1)
    with torch.no_grad():
        memory = model.encode(history)
    memory = Memory(memory.states.expand(items, -1, -1), memory.mask.expand(items, -1))
    with torch.no_grad():
        steps = token_log_probs(model, memory, sessions, catalogue.trie)[:, 1].exp()  # [N, L]
    codes = [tuple(row) for row in catalogue.codes.tolist()]
    others = [code for i, code in enumerate(codes) if i != item]
    wanted = torch.ones(items)
    for leaf, path in enumerate(codes):
        for level in range(levels):
            prefix = path[:level]
            children = {
                code[: level + 1]: float(steps[i, level]) for i, code in enumerate(codes) if code[:level] == prefix
            }
            still = {code[: level + 1] for code in others} & children.keys()
            total = sum(children[child] for child in still)
            wanted[leaf] *= children[path[: level + 1]] / total if path[: level + 1] in still else 0.0
    return wanted


def test_samples_are_legal_distinct_and_scored_at_temperature_one() -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 40)
    history = toys.histories(config, catalogue, [0, 8])
    exclude = [torch.arange(20), torch.empty(0, dtype=torch.int64)]
    generator = torch.Generator().manual_seed(3)
    found = Engine(model).sample(history, catalogue, 64, temperature=2.0, exclude=exclude, generator=generator)
    assert found.sessions.shape == (2, 64, 3)
    assert int(found.sessions[0].min()) >= 20
    for session in found.sessions.view(-1, 3).tolist():
        assert len(set(session)) == 3
    expected = teacher_forced(model, history, found.sessions, catalogue)
    torch.testing.assert_close(found.log_probs, expected.sum(-1), atol=TOLERANCE, rtol=0)


def test_a_higher_temperature_spreads_and_a_seed_repeats() -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=3.0), toys.catalogue(config, 100)
    history = toys.histories(config, catalogue, [6])
    engine = Engine(model)

    def draw(temperature: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return engine.sample(history, catalogue, 200, temperature=temperature, generator=generator).sessions

    assert torch.equal(draw(1.0, 5), draw(1.0, 5))
    assert not torch.equal(draw(1.0, 5), draw(1.0, 6))
    assert len(set(draw(3.0, 5)[0, :, 0].tolist())) > len(set(draw(0.2, 5)[0, :, 0].tolist()))
