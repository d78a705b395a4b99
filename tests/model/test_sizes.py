"""Presets and what the command says of them."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from onerec.cli.app import app
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import OneRec
from onerec.model.presets import PRESETS, ModelConfig, preset
from onerec.model.reward import RewardModel
from onerec.model.sizes import decode_flops, encode_flops, encoder_tokens, sizes
from tests.model.toy import config, history, sessions, trie


@pytest.mark.parametrize(
    ("name", "low", "high"), [("tiny", 40e3, 80e3), ("small", 1.5e6, 2.5e6), ("base", 90e6, 125e6), ("1b", 0.9e9, 1e9)]
)
def test_presets_have_the_size_of_their_name(name: str, low: float, high: float) -> None:
    assert low < sizes(preset(name)).parameters < high


def test_1b_is_the_papers() -> None:
    one = preset("1b")
    assert (one.levels, one.codes, one.session_items, one.history_items) == (3, 8192, 5, 256)
    assert (one.experts, one.active_experts, one.beam_width, one.history_tokens) == (24, 2, 128, "codes")
    assert encoder_tokens(one) == 1 + 768
    assert round(100 * sizes(one).active_share) == 13


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_counts_are_those_of_real_models(name: str) -> None:
    made, reward = OneRec(preset(name)), RewardModel(preset(name))
    found = sizes(preset(name))
    assert found.parameters == sum(p.numel() for p in made.parameters())
    assert found.reward_parameters == sum(p.numel() for p in reward.parameters())
    assert found.encoder + found.decoder + found.heads + found.tables == found.parameters
    with torch.device("meta"):
        dense = OneRec(_with_active(preset(name)))
    assert found.active == sum(p.numel() for part in (dense.decoder, dense.heads) for p in part.parameters()) + sum(
        block.moe.centroids.numel() for block in made.decoder.stack()
    ) - sum(block.moe.centroids.numel() for block in dense.decoder.stack())


def _with_active(full: ModelConfig) -> ModelConfig:
    return config(**{**{f: getattr(full, f) for f in full.__slots__}, "experts": full.active_experts})


@pytest.mark.parametrize("tokens", ["sum", "codes"])
def test_encode_flops_are_those_that_run(tokens: str) -> None:
    made = OneRec(config(history_tokens=tokens))
    with FlopCounterMode(display=False) as counter:
        made.encode(history([8], 8, trie()))
    assert encode_flops(made.config) == counter.get_total_flops()


def test_decode_flops_are_those_that_run() -> None:
    made = OneRec(config(beam_width=1))
    index = trie()
    memory = made.encode(history([8], 8, index))
    with FlopCounterMode(display=False) as counter:
        token_log_probs(made, memory, sessions(1, 3, index), index)
    assert decode_flops(made.config) == pytest.approx(counter.get_total_flops(), rel=0.12)


def test_a_wider_beam_costs_in_proportion() -> None:
    narrow, wide = (decode_flops(config(beam_width=width)) for width in (100, 1000))
    assert 9.0 < wide / narrow < 10.0


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ValueError, match=r"no preset 'huge'; there are tiny, small, base, 1b"):
        preset("huge")


@pytest.mark.parametrize("change", [{"heads": 3}, {"active_experts": 5}, {"active_experts": 0}, {"reward_heads": 5}])
def test_contradictions_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="preset tiny"):
        config(**change)


def test_the_command_prints_every_preset() -> None:
    result = CliRunner().invoke(app, ["model"], env={"COLUMNS": "250"})
    assert result.exit_code == 0
    for name in PRESETS:
        assert re.search(rf"│ {name} ", result.stdout)
    assert "13.4 %" in result.stdout


def test_the_command_prints_json() -> None:
    printed = json.loads(CliRunner().invoke(app, ["model", "1b", "--json"]).stdout)
    assert list(printed) == ["1b"]
    assert printed["1b"]["config"]["beam_width"] == 128
    assert printed["1b"]["parameters"] == sizes(preset("1b")).parameters


def test_the_command_refuses_an_unknown_preset() -> None:
    result = CliRunner().invoke(app, ["model", "huge"])
    assert result.exit_code == 2
    assert "'huge'" in result.stderr
