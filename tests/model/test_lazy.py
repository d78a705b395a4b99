"""The lazy decoder: one memory for all layers, and the same promises as the encoder-decoder's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from onerec.cli.app import app
from onerec.model.attention import CrossAttention, padding_bias
from onerec.model.batches import HistoryBatch
from onerec.model.lazy import SharedAttention
from onerec.model.likelihood import ntp_loss, token_log_probs
from onerec.model.onerec import Memory, OneRec
from onerec.model.presets import ModelConfig, lazy, preset
from onerec.model.sizes import decode_flops, encode_flops, sizes
from onerec.settings import load_settings
from tests.model.toy import assert_equal, config, history, model, sessions, trie

TRIE = trie()
ONE_SET: dict[str, Any] = {"decoder": "lazy", "encoder_layers": 0, "decoder_layers": 3}
TWO_SETS: dict[str, Any] = ONE_SET | {"heads": 4, "kv_heads": 2, "kv_sets": 2, "separate_values": True}
FORMS = pytest.mark.parametrize("changes", [ONE_SET, TWO_SETS, TWO_SETS | {"history_tokens": "codes"}])


@FORMS
def test_padding_and_neighbours_change_nothing(changes: dict[str, Any]) -> None:
    made = model(**changes)
    batch, leaves = history([0, 2, 5], 8, TRIE), sessions(3, 3, TRIE)
    short = HistoryBatch(batch.codes[:, :5], batch.labels[:, :5], batch.mask[:, :5])
    expected = token_log_probs(made, made.encode(batch), leaves, TRIE)
    assert_equal(token_log_probs(made, made.encode(short), leaves, TRIE), expected)
    for row in range(3):
        one = HistoryBatch(*(t[row : row + 1] for t in (batch.codes, batch.labels, batch.mask)))
        assert_equal(token_log_probs(made, made.encode(one), leaves[row : row + 1], TRIE)[0], expected[row])


@FORMS
def test_every_parameter_learns_and_no_layer_projects_the_history(changes: dict[str, Any]) -> None:
    made = model(**changes)
    memory = made.encode(history([8] * 16, 8, TRIE))
    assert memory.states.shape[2] == made.config.memory_width
    ntp_loss(token_log_probs(made, memory, sessions(16, 3, TRIE), TRIE), torch.ones(16, 3)).backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert not [name for name, _ in made.named_parameters() if "cross_attention.kv" in name or "encoder.blocks" in name]


def test_layers_of_a_group_read_the_same_columns_and_no_others() -> None:
    made = model(**TWO_SETS)
    memory, leaves = made.encode(history([4, 4], 4, TRIE)), sessions(2, 3, TRIE)
    attentions = [block.cross_attention for block in made.decoder.stack()]
    assert all(isinstance(each, SharedAttention) for each in attentions)
    assert [each.columns for each in attentions if isinstance(each, SharedAttention)] == [(0, 16), (0, 16), (32, 48)]
    width = made.config.kv_width
    states = memory.states.detach().clone().requires_grad_()
    x = made.decoder_inputs(TRIE.codes[leaves])
    made.decoder.stack()[2].cross_attention(x, states, padding_bias(memory.mask)).sum().backward()
    assert states.grad is not None
    read = states.grad.abs().sum((0, 1)) > 0
    assert read.tolist() == [False] * 2 * width + [True] * 2 * width


def test_shared_attention_is_cross_attention_with_its_keys_repeated() -> None:
    torch.manual_seed(0)
    own = config(**TWO_SETS)
    shared = SharedAttention(own, layer=0).double()
    usual = CrossAttention(own.d_model, own.heads).double()
    x, memory = torch.randn(2, 5, own.d_model).double(), torch.randn(2, 7, own.memory_width).double()
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    parts = (memory[..., at : at + own.kv_width].view(2, 7, 2, -1).repeat_interleave(2, dim=2) for at in (0, 16))
    key, value = (part.transpose(1, 2) for part in parts)
    usual.q, usual.out = shared.q, shared.out
    assert_equal(shared(x, memory, padding_bias(mask)), usual.attend(x, key, value, padding_bias(mask)))


def test_positions_one_by_one_are_those_together() -> None:
    made = model(**TWO_SETS)
    memory, leaves = made.encode(history([4, 2], 4, TRIE)), sessions(2, 3, TRIE)
    inputs = made.decoder_inputs(TRIE.codes[leaves])
    together = made.decode(inputs, memory)
    for length in (1, 4, 7):
        assert_equal(made.decode(inputs[:, :length], memory), together[:, :length])


def test_a_few_steps_learn_a_session_by_heart() -> None:
    made: OneRec = model(**TWO_SETS).float()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2, fused=True)
    batch, leaves, weight = history([4, 8], 8, TRIE), sessions(2, 3, TRIE), torch.ones(2, 3)
    losses = []
    for _ in range(40):
        loss = ntp_loss(token_log_probs(made, made.encode(batch), leaves, TRIE), weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made.update_expert_bias(1e-3)
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.3


def test_low_precision_is_near_full_precision() -> None:
    low, full = (model(**TWO_SETS, bf16=bf16).float() for bf16 in (True, False))
    batch, leaves = history([4, 8], 8, TRIE), sessions(2, 3, TRIE)
    near, exact = (token_log_probs(m, m.encode(batch), leaves, TRIE) for m in (low, full))
    torch.testing.assert_close(near, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["small", "base", "1b"])
def test_a_lazy_form_has_the_depth_and_about_the_parameters_of_its_preset(name: str) -> None:
    usual, own = preset(name), preset(f"{name}-lazy")
    assert own == lazy(usual)
    assert own.decoder_layers == usual.encoder_layers + usual.decoder_layers
    assert 0.8 < sizes(own).parameters / sizes(usual).parameters < 1.25
    assert sizes(own).encode_flops < 0.1 * sizes(usual).encode_flops


@FORMS
def test_flops_are_those_that_run(changes: dict[str, Any]) -> None:
    made = OneRec(config(**changes, beam_width=1))
    batch = history([8], 8, TRIE)
    with FlopCounterMode(display=False) as counter:
        memory = made.encode(batch)
    assert encode_flops(made.config) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        token_log_probs(made, memory, sessions(1, 3, TRIE), TRIE)
    assert decode_flops(made.config) == pytest.approx(counter.get_total_flops(), rel=0.15)


@pytest.mark.parametrize(
    "change", [{"encoder_layers": 1}, {"kv_heads": 3}, {"kv_heads": 0}, {"kv_sets": 4}, {"kv_sets": 0}]
)
def test_contradictions_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="preset tiny"):
        config(**(TWO_SETS | change))


def test_the_setting_names_the_configuration() -> None:
    assert load_settings(model={"preset": "base"}).model.configuration == "base"
    chosen = load_settings(model={"preset": "base", "decoder": "lazy"}).model
    assert preset(chosen.configuration).decoder == "lazy"


def test_the_command_shows_a_lazy_form() -> None:
    result = CliRunner().invoke(app, ["model", "small-lazy"], env={"COLUMNS": "250"})
    assert result.exit_code == 0
    assert "0+4" in result.stdout
    assert CliRunner().invoke(app, ["model", "huge-lazy"]).exit_code == 2


def test_memory_is_one_set_however_many_layers() -> None:
    def kept(made: ModelConfig) -> int:
        memory: Memory = OneRec(made).encode(history([8], 8, TRIE))
        return memory.states.numel()

    assert kept(config(**ONE_SET)) == kept(config(**ONE_SET | {"decoder_layers": 1})) == 9 * 16
