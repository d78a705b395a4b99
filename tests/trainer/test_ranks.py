"""Several ranks make the steps of one: gradients, weights, expert balance; a rank that dies costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from onerec.errors import SettingsError
from onerec.settings import KafkaSettings, TrainerSettings, load_settings
from schemas.records import JournalKind
from schemas.topics import PREFERENCES, SESSIONS
from tests.trainer import toy
from tests.trainer.rank_steps import MODELS, OTHER_PARTS, SHARDINGS, STEPS, fresh, run, seed
from tests.trainer.test_kills import consumed
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.test_step import copied, same
from tests.trainer.world import ROOT, World, torchrun
from trainer import kernels
from trainer.environment import make_deterministic
from trainer.ranks import joined
from trainer.rendezvous import meet
from trainer.reproduce import reproduce
from trainer.state import TrainState
from trainer.verdict import Distance

STARTS_WITHIN_S = 150.0
"""Torchrun's processes load torch three times at once, beside whatever else the machine does."""
BOUND = 1e-4
"""Largest difference of an element between two roundings, as a share of its tensor's largest: 3e-6 were seen."""
TINY_MODELS = [name for name in MODELS if name not in {"dropout", "branching"}]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def states(name: str, parts: int) -> dict[int, dict[str, Tensor]]:
    """Weights and moments after the first and the last step, of this process over so many parts."""
    state: TrainState = fresh(MODELS[name])
    state.parts = parts
    return {number: copied(state.tensors()) for number, _ in run(state) if number in (1, STEPS)}


def near(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Rounding apart; the experts' biases, that depend on counts alone, to the bit."""
    assert made.keys() == wanted.keys()
    distance = Distance.between(made, wanted)
    assert distance.relative < BOUND, distance
    biases = [key for key in wanted if key.endswith("moe.bias")]
    assert len(biases) == 2
    assert all(torch.equal(made[key], wanted[key]) for key in biases)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_parts_add_up_to_the_whole_batch(name: str, parts: int) -> None:
    whole, divided = states(name, 1), states(name, parts)
    assert any(torch.any(whole[STEPS][key] != 0) for key in whole[STEPS] if key.endswith("moe.bias")) or name == "dense"
    for number in whole:
        near(divided[number], whole[number])


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which rank 0 of two has written."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [*torchrun(2), "-m", "tests.trainer.rank_steps", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=STARTS_WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("name", TINY_MODELS)
def test_two_ranks_make_the_steps_of_one(on_two_ranks: Path, name: str, sharding: str) -> None:
    """After one step the moments are the gradients, but for a factor; after several, the weights must still agree."""
    alone = states(name, 1)
    assert alone.keys() == {1, STEPS}
    for number, wanted in alone.items():
        near(load_file(on_two_ranks / f"{sharding}-{name}-{number}.safetensors"), wanted)


def test_one_process_over_two_parts_has_the_bits_of_two_ranks(on_two_ranks: Path) -> None:
    """Dropout's too: it is drawn by part. So a version of two ranks can be made again in one process."""
    for name in ("moe", "dense", "dropout"):
        for number, wanted in states(name, 2).items():
            assert same(load_file(on_two_ranks / f"ddp-{name}-{number}.safetensors"), wanted), (name, number)


def test_all_ranks_compute_by_the_kernels_of_the_first(on_two_ranks: Path) -> None:
    kernels.choose(TrainerSettings(), torch.device("cpu"))
    for number, wanted in states("moe", 2).items():
        assert same(load_file(on_two_ranks / f"compiled-{number}.safetensors"), wanted), number


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_kernels_of_whole_branches_make_the_same_steps_on_ranks(on_two_ranks: Path, sharding: str) -> None:
    """Shards are whole only inside of their modules, which a branch does not call: there products are torch's."""
    kernels.choose(TrainerSettings(), torch.device("cpu"), sharded=sharding == "fsdp")
    for number, wanted in states("branching", 2).items():
        made = load_file(on_two_ranks / f"branching-{sharding}-{number}.safetensors")
        assert same(made, wanted) if sharding == "ddp" else Distance.between(made, wanted).relative < 0.01, number


@pytest.mark.parametrize("parts", OTHER_PARTS)
def test_steps_of_fewer_or_more_ranks_are_made_again_by_two(on_two_ranks: Path, parts: int) -> None:
    divided = states("moe", parts)
    assert divided.keys() == {1, STEPS}
    for number, wanted in divided.items():
        near(load_file(on_two_ranks / f"parts-{parts}-{number}.safetensors"), wanted)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_the_seed_is_made_on_all_ranks(on_two_ranks: Path, sharding: str) -> None:
    alone, divided = fresh(MODELS["moe"]), fresh(MODELS["moe"])
    divided.parts = 2
    of_one, of_two_parts = copied(seed(alone)), copied(seed(divided))
    of_two_ranks = load_file(on_two_ranks / f"{sharding}-seed.safetensors")
    near(of_two_parts, of_one)
    near(of_two_ranks, of_one)
    assert same(of_two_ranks, of_two_parts) or sharding == "fsdp"
    assert not same(fresh(MODELS["moe"]).weights(), of_one)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch": 3}, r"trainer\.batch is 3, fewer sessions than the 4 ranks"),
        ({"ranks": {"backend": "nccl"}}, r"trainer\.ranks\.backend is nccl, but there is no CUDA device"),
    ],
)
def test_ranks_that_do_not_fit_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingsError, match=said), joined(load_settings(trainer=given)):
        pass


def test_without_torchrun_there_are_no_ranks() -> None:
    with joined(load_settings()) as ranks:
        assert ranks is None


def test_ranks_of_a_new_start_do_not_meet_those_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchrun's store is the same after a restart, with all that the dead ranks had written."""
    monkeypatch.setattr("trainer.rendezvous.ASK_AGAIN", timedelta(seconds=0.1))
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    names, asked = list[str](), b""

    def met(rank: int) -> str:
        return meet(TCPStore("127.0.0.1", server.port, is_master=False), rank, 2, timedelta(seconds=60))

    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            second = pool.submit(met, 1)
            while names and server.get(f"{names[0]}/asks/1") == asked:
                time.sleep(0.01)  # until it has read the earlier name, and asks there in vain
            names.append(pool.submit(met, 0).result())
            assert second.result() == names[-1]
            asked = server.get(f"{names[0]}/asks/1")
    assert names[0] != names[1]


def send(world: World, first: int, count: int) -> None:
    """Sessions, one of them twice, and a pair."""
    sessions = [toy.session(n, [n % 50, (3 * n) % 50], labels=n % 3) for n in range(first, first + count)]
    world.publish_sessions([*sessions, sessions[0]])
    world.publish_pairs([toy.pair(first, [1, 2, 3], [4, 5, first % 50], (-12.0, -12.5))])


def kill_rank(launcher: subprocess.Popen[bytes], rank: int) -> None:
    """SIGKILL for one of torchrun's processes."""
    children = psutil.Process(launcher.pid).children()
    victim = next(child for child in children if child.environ().get("RANK") == str(rank))
    victim.send_signal(signal.SIGKILL)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rank_that_is_killed_costs_nothing(kafka: KafkaSettings, tmp_path: Path) -> None:
    """Torchrun starts both again; afterwards one process alone goes on with what they have learned."""
    world = World(kafka, tmp_path, {"batch": 8})
    world.publish_catalogue()
    world.publish_histories()
    launcher = world.start(ranks=2)
    try:
        send(world, 0, 30)
        world.wait_for_sessions(31, launcher, within_s=STARTS_WITHIN_S)
        kill_rank(launcher, 1)
        send(world, 100, 30)
        world.wait_for_sessions(62, launcher, within_s=STARTS_WITHIN_S)
    finally:
        launcher.terminate()
        launcher.wait(STARTS_WITHIN_S)
    assert "trainer ended" in world.log(), "asked to stop, rank 0 ends in peace"
    of_two_ranks = world.versions()[-1].version
    same_bits = reproduced_on_two_ranks(world, of_two_ranks)

    with trainer(world) as alone:
        send(world, 200, 9)
        learn_all(alone, sessions=10, pairs=1)
        alone.publish()

    ranges = consumed(world, SESSIONS.name)
    assert sum(r.applied for r in ranges) == 69, "each session is applied once"
    assert sum(r.applied for r in consumed(world, PREFERENCES.name)) == 3
    for partition in (0, 1):
        mine = [r for r in ranges if r.partition == partition]
        assert all(a.next_offset == b.first_offset for a, b in pairwise(mine))
    starts = [entry for entry in world.journal() if entry.kind is JournalKind.START]
    assert [entry.environment.get("ranks") for entry in starts] == ["2", "2", None]
    announced = {version.version: version.sha256 for version in world.versions()}
    assert {number: sha for number, sha in announced.items() if number <= of_two_ranks} == same_bits
    here = reproduce(world.settings, None, from_seed=True)
    assert here.passed
    assert {each.version: each.made_sha256 for each in here.versions} == announced, "of two ranks the sum has one order"
    assert here.versions[of_two_ranks - 1].differences["ranks"] == ("2", "")


def reproduced_on_two_ranks(world: World, last: int) -> dict[int, str]:
    """Versions 1 to `last`, made again by the command under torchrun: SHA-256, all of them identical."""
    command = ["-m", "onerec", "versions", "reproduce", "1", "--through", str(last), "--from-seed", "--json"]
    done = subprocess.run(
        [*torchrun(2), *command, "--config", str(world.config())],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=STARTS_WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["identical"], answer["same_environment"]) == (True, True)
    return {each["version"]: each["made_sha256"] for each in answer["versions"]}
