"""A checkpoint brings back the same state, is written whole or not at all, and torn ones are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onerec.errors import CheckFailedError, SettingsError
from onerec.model.presets import lazy, preset
from tests.trainer import toy
from tests.trainer.test_step import copied, same, stream
from trainer.checkpoint import FIELDS, TENSORS, Checkpoints, Surroundings, TornCheckpointError, load_checkpoint
from trainer.environment import make_deterministic
from trainer.state import TrainState
from trainer.step import apply_step

SURROUNDINGS = Surroundings(
    model="onerec", cluster_id="c", journal_offset=17, codebook_version=1, environment={"threads": "1"}
)


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def trained(steps: int) -> TrainState:
    state = toy.state()
    for step_input in stream(steps):
        apply_step(state, step_input)
    return state


def test_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    state = trained(3)
    state.version, state.online_from = 4, 1
    Checkpoints(tmp_path, keep=3).save(state, SURROUNDINGS)
    found = Checkpoints(tmp_path, keep=3).load(toy.TINY, state.settings)
    assert found is not None
    loaded, surroundings = found
    assert surroundings == SURROUNDINGS
    assert same(loaded.tensors(), state.tensors())
    assert (loaded.step, loaded.version, loaded.online_from, loaded.offsets) == (3, 4, 1, state.offsets)
    later = stream(6)[3:]
    for step_input in later:
        assert apply_step(loaded, step_input) == apply_step(state, step_input)
    assert same(loaded.tensors(), state.tensors())
    assert apply_step(loaded, later[0]).duplicates == 5, "ids of before the checkpoint are remembered"


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", keep=3).load(toy.TINY, toy.state().settings) is None


@pytest.mark.parametrize(("file", "keep_bytes"), [(TENSORS, 1000), (TENSORS, 0), (FIELDS, 40), (FIELDS, 0)])
def test_torn_one_is_refused_and_the_one_before_is_used(tmp_path: Path, file: str, keep_bytes: int) -> None:
    state, checkpoints = trained(1), Checkpoints(tmp_path, keep=3)
    checkpoints.save(state, SURROUNDINGS)
    before = copied(state.tensors())
    apply_step(state, stream(2)[1])
    newest = checkpoints.save(state, SURROUNDINGS)
    (newest / file).write_bytes((newest / file).read_bytes()[:keep_bytes])
    with pytest.raises(TornCheckpointError, match="torn"):
        load_checkpoint(newest, toy.TINY, state.settings)
    found = checkpoints.load(toy.TINY, state.settings)
    assert found is not None
    assert found[0].step == 1
    assert same(found[0].tensors(), before)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path, keep=3).save(trained(1), SURROUNDINGS)
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(data)
    with pytest.raises(CheckFailedError, match="torn"):
        Checkpoints(tmp_path, keep=3).load(toy.TINY, toy.state().settings)


def test_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    (tmp_path / "step-000000000009.partial").mkdir(parents=True)
    checkpoints.save(trained(1), SURROUNDINGS)
    assert [folder.name for folder in checkpoints.folders()] == ["step-000000000001"]


def test_keeps_the_newest_and_the_seed(tmp_path: Path) -> None:
    state, checkpoints = trained(1), Checkpoints(tmp_path, keep=2)
    checkpoints.save(state, SURROUNDINGS, for_good=True)
    for step_input in stream(5)[1:]:
        apply_step(state, step_input)
        checkpoints.save(state, SURROUNDINGS)
    names = [folder.name for folder in checkpoints.folders()]
    assert names == ["step-000000000001-kept", "step-000000000004", "step-000000000005"]


def test_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, checkpoints = trained(1), Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, SURROUNDINGS)
    apply_step(state, stream(2)[1])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(state, SURROUNDINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]


def test_of_another_preset_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, keep=1).save(trained(1), SURROUNDINGS)
    with pytest.raises(SettingsError, match=r"preset small.*model\.preset"):
        Checkpoints(tmp_path, keep=1).load(preset("small"), toy.state().settings)


def test_weights_of_the_checkpoint_do_not_alias_the_file(tmp_path: Path) -> None:
    state = trained(1)
    Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    found = Checkpoints(tmp_path, keep=1).load(toy.TINY, state.settings)
    assert found is not None
    apply_step(found[0], stream(2)[1])
    assert any(
        not torch.equal(a, b) for a, b in zip(found[0].onerec.parameters(), state.onerec.parameters(), strict=True)
    )
    again = Checkpoints(tmp_path, keep=1).load(toy.TINY, state.settings)
    assert again is not None
    assert same(again[0].weights(), state.weights())


@pytest.mark.parametrize(
    "body", ["", "[]", "5", '{"format": 99}', '{"format": 1}', "[" * 100_000], ids=lambda body: body[:15] or "nothing"
)
def test_fields_that_fit_their_checksum_but_are_none_are_torn(tmp_path: Path, body: str) -> None:
    sealed = {"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}
    for data in (json.dumps(sealed), "[" * 100_000):
        (tmp_path / FIELDS).write_text(data)
        with pytest.raises(TornCheckpointError):
            load_checkpoint(tmp_path, toy.TINY, toy.state().settings)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "3"},
        {"version": None},
        {"online_from": -1},
        {"offsets": [["sessions", 0]]},
        {"offsets": [["sessions", 0, 1.5]]},
        {"surroundings": {"model": "m"}},
    ],
    ids=str,
)
def test_contents_that_are_no_state_are_torn(tmp_path: Path, change: dict[str, Any]) -> None:
    state = trained(1)
    folder = Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    body = json.dumps(json.loads(json.loads((folder / FIELDS).read_bytes())["body"]) | change)
    (folder / FIELDS).write_text(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}))
    with pytest.raises(TornCheckpointError, match="holds no state of this trainer"):
        load_checkpoint(folder, toy.TINY, state.settings)


def test_of_a_lazy_decoder_goes_on_and_is_not_taken_for_the_other_form(tmp_path: Path) -> None:
    config, settings = lazy(toy.TINY), toy.state().settings
    state = TrainState.new(config, settings)
    inputs = stream(4)
    for step_input in inputs[:2]:
        apply_step(state, step_input)
    Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    with pytest.raises(SettingsError, match=r"model\.decoder"):
        Checkpoints(tmp_path, keep=1).load(toy.TINY, settings)
    found = Checkpoints(tmp_path, keep=1).load(config, settings)
    assert found is not None
    loaded, _ = found
    for step_input in inputs[2:]:
        assert apply_step(loaded, step_input) == apply_step(state, step_input)
    assert same(loaded.tensors(), state.tensors())


def test_written_before_a_size_had_its_field_is_read(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path, keep=1).save(trained(1), SURROUNDINGS)
    fields = json.loads(json.loads((folder / FIELDS).read_text())["body"])
    for name in ("decoder", "kv_sets", "kv_heads", "separate_values"):
        del fields["config"][name]
    body = json.dumps(fields)
    (folder / FIELDS).write_text(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}))
    assert load_checkpoint(folder, toy.TINY, toy.state().settings)[0].step == 1
