"""What must not change the result: padding, neighbours in the batch, later positions, the number of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import ntp_loss, token_log_probs
from onerec.model.onerec import OneRec
from tests.model.toy import assert_equal, history, model, sessions, trie

TRIE = trie()


@pytest.mark.parametrize("tokens", ["sum", "codes"])
def test_padding_changes_nothing(tokens: str) -> None:
    made = model(history_tokens=tokens)
    long = history([0, 2, 5], 8, TRIE)
    short = HistoryBatch(long.codes[:, :5], long.labels[:, :5], long.mask[:, :5])
    narrow, wide = made.encode(short), made.encode(long)
    assert narrow.mask.sum(1).equal(wide.mask.sum(1))
    assert_equal(narrow.states[narrow.mask], wide.states[wide.mask])
    leaves = sessions(3, 3, TRIE)
    assert_equal(token_log_probs(made, narrow, leaves, TRIE), token_log_probs(made, wide, leaves, TRIE))


@pytest.mark.parametrize("tokens", ["sum", "codes"])
def test_a_row_does_not_depend_on_its_batch(tokens: str) -> None:
    made = model(history_tokens=tokens)
    batch, leaves = history([0, 2, 5, 8], 8, TRIE), sessions(4, 3, TRIE)
    together = token_log_probs(made, made.encode(batch), leaves, TRIE)
    for row in range(4):
        one = HistoryBatch(*(t[row : row + 1] for t in (batch.codes, batch.labels, batch.mask)))
        alone = token_log_probs(made, made.encode(one), leaves[row : row + 1], TRIE)
        assert_equal(alone[0], together[row])


def test_memory_has_a_start_token_and_the_tokens_of_each_item() -> None:
    batch = history([0, 2], 2, TRIE)
    assert model().encode(batch).mask.tolist() == [[True, False, False], [True, True, True]]
    assert model(history_tokens="codes").encode(batch).states.shape == (2, 7, 32)


def test_no_history_columns_at_all() -> None:
    states, mask = model().encode(history([0, 0], 0, TRIE))
    assert states.shape == (2, 1, 32)
    assert mask.all()


def test_positions_are_counted_from_the_newest_item() -> None:
    made = model(encoder_layers=1)
    with torch.no_grad():
        made.code_embedding.weight.zero_()
        made.label_embedding.weight.zero_()
    inputs, _ = made.encoder_inputs(history([1, 3], 3, TRIE))
    assert inputs[0, 1].equal(made.history_position[0])
    assert inputs[1, 1:].equal(made.history_position[:3].flip(0))


def test_labels_and_order_matter() -> None:
    made, batch = model(), history([3], 3, TRIE)
    other_labels = HistoryBatch(batch.codes, (batch.labels + 1) % 64, batch.mask)
    turned = HistoryBatch(batch.codes.flip(1), batch.labels.flip(1), batch.mask)
    start = made.encode(batch).states[:, 0]
    assert not torch.allclose(start, made.encode(other_labels).states[:, 0])
    assert not torch.allclose(start, made.encode(turned).states[:, 0])


def test_the_decoder_sees_no_later_position() -> None:
    made = model()
    memory, leaves = made.encode(history([4, 4], 4, TRIE)), sessions(2, 3, TRIE)
    changed = leaves.clone()
    changed[:, 2] = (changed[:, 2] + 1) % len(TRIE)
    before, after = (token_log_probs(made, memory, x, TRIE) for x in (leaves, changed))
    assert_equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])


def test_decode_gives_every_position_and_decode_rows_the_wanted_ones() -> None:
    made = model()
    memory = made.encode(history([4, 2], 4, TRIE))
    inputs = made.decoder_inputs(TRIE.codes[sessions(2, 3, TRIE)])
    wanted = torch.zeros(inputs.shape[:2], dtype=torch.bool)
    wanted[0, 3] = wanted[0, 7] = wanted[1, 0] = True
    everything = made.decode(inputs, memory)
    assert everything.shape == (2, 12, 32)
    assert_equal(made.decode_rows(inputs, memory, wanted), everything[wanted])


def test_only_positions_that_are_needed_load_the_experts() -> None:
    made = model()
    memory = made.encode(history([4, 2], 4, TRIE))
    leaves, wanted = sessions(2, 3, TRIE), torch.tensor([[False, True, False], [False, False, False]])
    token_log_probs(made, memory, leaves, TRIE, wanted)
    first, last = (block.moe.load.sum() for block in made.decoder.stack())
    active = made.config.active_experts
    assert (int(first), int(last)) == (7 * active, 3 * active)  # up to the second item's last choice; its choices


@pytest.fixture
def strict_determinism() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("strict_determinism")
def test_training_twice_gives_the_same_bits(threads: int, bf16: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second = _trained(bf16), _trained(bf16)
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


def _trained(bf16: bool) -> list[Tensor]:
    made = model(dropout=0.1, bf16=bf16).float()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2, fused=True)
    weight = torch.tensor([[1.0, 0.0, 1.0]]).repeat(16, 1)
    for step in range(3):
        memory = made.encode(history([step % 9] * 16, 8, TRIE, seed=step))
        log_probs = token_log_probs(made, memory, sessions(16, 3, TRIE, seed=step), TRIE, weight > 0)
        optimizer.zero_grad()
        ntp_loss(log_probs, weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made.update_expert_bias(1e-3)
    return [tensor.clone() for tensor in made.state_dict().values()]


def test_low_precision_is_near_full_precision() -> None:
    low, full = (model(bf16=bf16).float() for bf16 in (True, False))
    memory_of, leaves = history([4, 8], 8, TRIE), sessions(2, 3, TRIE)
    near, exact = (token_log_probs(m, m.encode(memory_of), leaves, TRIE) for m in (low, full))
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=0.05, atol=0.05)


def test_it_runs_under_autocast_too() -> None:
    made = model().float()
    batch, leaves, weight = history([4, 8], 8, TRIE), sessions(2, 3, TRIE), torch.ones(2, 3)
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(ntp_loss(token_log_probs(made, made.encode(batch), leaves, TRIE), weight))
        made.zero_grad()
        losses[-1].backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.05)


def test_every_parameter_learns() -> None:
    made = model()
    leaves = sessions(16, 3, TRIE)
    loss = ntp_loss(token_log_probs(made, made.encode(history([8] * 16, 8, TRIE)), leaves, TRIE), torch.ones(16, 3))
    loss.backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_a_few_steps_learn_a_session_by_heart() -> None:
    made: OneRec = model().float()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2, fused=True)
    batch, leaves, weight = history([4, 8], 8, TRIE), sessions(2, 3, TRIE), torch.ones(2, 3)
    losses = []
    for _ in range(40):
        loss = ntp_loss(token_log_probs(made, made.encode(batch), leaves, TRIE), weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.1
