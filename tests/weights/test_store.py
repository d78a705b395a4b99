"""Versions on a local folder and on fsspec's memory file system: round trips, refusals, collection."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from onerec.weights.errors import (
    CorruptWeightsError,
    IncompatibleWeightsError,
    OutsideStoreError,
    StoreUnreachableError,
    VersionMissingError,
)
from onerec.weights.store import Loaded, WeightsStore
from onerec.weights.tensors import digest

GENERATOR = torch.Generator().manual_seed(5)


def weights(step: int = 0) -> dict[str, Tensor]:
    fixed = torch.Generator().manual_seed(1)
    base = torch.randn(20, 10, generator=fixed) * 0.05
    return {"onerec.w": (base + 1e-4 * step).bfloat16(), "onerec.bias": torch.arange(3.0), "n": torch.tensor(step)}


def same(one: Loaded, tensors: dict[str, Tensor]) -> bool:
    return one.sha256 == digest(one.tensors) == digest(tensors)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WeightsStore:
    return WeightsStore(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def local(tmp_path: Path) -> WeightsStore:
    return WeightsStore(str(tmp_path))


def publish(store: WeightsStore, versions: int, full_every: int = 100) -> None:
    for version in range(1, versions + 1):
        if version % full_every == 1 or full_every == 1:
            store.write_full(version, weights(version), {"step": version})
        else:
            store.write_delta(version, version - 1, weights(version - 1), weights(version), {"step": version})


def test_full_and_delta_versions_come_back_bit_for_bit(store: WeightsStore) -> None:
    artifact = store.write_full(1, weights(1), {"step": 10})
    assert artifact.sha256 == digest(weights(1))
    later = store.write_delta(2, 1, weights(1), weights(2))
    store.write_delta(3, 2, weights(2), weights(3))
    assert store.versions() == [1, 2, 3]
    assert store.manifest(1).facts == {"step": 10}
    assert store.folder.size(later.uri) == later.size_bytes
    first = store.read(1)
    third = store.read(3, first)
    assert same(first, weights(1))
    assert same(third, weights(3))
    assert same(store.read(2), weights(2))
    assert same(store.read(2, third), weights(2)), "back to an older one"
    assert store.read(3, third) is third
    for version, uri in ((1, artifact.uri), (2, later.uri)):
        store.check_uri(uri, version)


def test_reads_no_more_files_than_the_shortest_chain(store: WeightsStore) -> None:
    publish(store, 6, full_every=4)  # 1 full, 2..4 deltas, 5 full, 6 delta
    have = store.read(3)
    store.folder.remove("versions/00000001")
    store.folder.remove("versions/00000002")
    assert same(store.read(4, have), weights(4)), "from what it has"
    assert same(store.read(6, have), weights(6)), "from the nearest full one"
    with pytest.raises(VersionMissingError, match="needs version 2"):
        store.read(4)


def test_what_it_has_is_not_used_where_it_is_another(store: WeightsStore) -> None:
    publish(store, 2)
    impostor = Loaded(1, weights(9), digest(weights(9)))
    assert same(store.read(2, impostor), weights(2))


def test_a_version_written_again_replaces_the_one_before(store: WeightsStore) -> None:
    publish(store, 2)
    store.write_full(2, weights(7))
    assert same(store.read(2), weights(7))
    assert len(store.folder.names("versions/00000002")) == 2


def test_a_delta_upon_other_weights_is_refused(store: WeightsStore) -> None:
    publish(store, 2)
    with pytest.raises(IncompatibleWeightsError, match="other weights"):
        store.write_delta(3, 2, weights(5), weights(3))
    store.write_full(2, weights(8))  # the parent of nothing yet
    store.write_delta(3, 2, weights(8), weights(3))
    store.write_full(2, weights(9))
    with pytest.raises(CorruptWeightsError, match="not the parent"):
        store.read(3)


def test_shapes_of_another_model_are_refused_before_anything_is_read(store: WeightsStore) -> None:
    publish(store, 1)
    store.folder.write(f"versions/00000001/{store.manifest(1).file}", b"")
    with pytest.raises(IncompatibleWeightsError, match=r"onerec\.w is BF16\[20, 10\], expected BF16\[20, 11\]"):
        store.read(1, shapes={"onerec.w": (20, 11), "onerec.bias": (3,), "n": ()})


def test_a_parent_of_another_size_is_refused_before_its_file_is_read(local: WeightsStore, tmp_path: Path) -> None:
    publish(local, 2)
    path = tmp_path / "versions/00000001/manifest.json"
    values = json.loads(path.read_bytes())
    values["tensors"]["onerec.w"] = ["F32", [2**30, 2**9]]
    path.write_text(json.dumps(values))
    (tmp_path / "versions/00000001" / values["file"]).unlink()
    with pytest.raises(CorruptWeightsError, match="Version 1 has other tensors than its child"):
        local.read(2)


@pytest.mark.parametrize("cut", [0, 4, 50, -1])
def test_a_torn_file_is_refused(local: WeightsStore, tmp_path: Path, cut: int) -> None:
    publish(local, 2)
    for version in (1, 2):
        file = tmp_path / f"versions/0000000{version}" / local.manifest(version).file
        whole = file.read_bytes()
        file.write_bytes(whole[:cut])
        with pytest.raises(CorruptWeightsError, match=f"file of version {version}"):
            local.read(version)
        file.write_bytes(whole)
    assert same(local.read(2), weights(2))


def test_a_changed_weight_is_refused_by_its_checksum(local: WeightsStore, tmp_path: Path) -> None:
    publish(local, 1)
    file = tmp_path / "versions/00000001" / local.manifest(1).file
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptWeightsError, match="SHA-256"):
        local.read(1)


def test_a_file_with_other_tensors_than_its_manifest_is_refused(local: WeightsStore, tmp_path: Path) -> None:
    publish(local, 1)
    file = tmp_path / "versions/00000001" / local.manifest(1).file
    other = safetensors.torch.save({"onerec.w": torch.zeros(2)})
    file.write_bytes(other)
    manifest = tmp_path / "versions/00000001/manifest.json"
    values = json.loads(manifest.read_bytes()) | {"size_bytes": len(other)}
    manifest.write_text(json.dumps(values))
    with pytest.raises(CorruptWeightsError, match="not what its manifest says"):
        local.read(1)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"sha256": "0"},
        {"file": "../../../etc/passwd"},
        {"kind": "pickle"},
        {"parent": 7, "kind": "delta"},
        {"parent": 1, "kind": "delta"},
        {"size_bytes": -1},
        {"size_bytes": "1"},
        {"format": 2},
        {"unknown": 1},
        {"tensors": {"a": ["F32"]}},
        {"tensors": []},
    ],
)
def test_a_wrong_manifest_is_refused(local: WeightsStore, tmp_path: Path, change: dict[str, object]) -> None:
    publish(local, 1)
    path = tmp_path / "versions/00000001/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(CorruptWeightsError, match="manifest of version 1"):
        local.read(1)


@pytest.mark.parametrize("shape", [[2**50], [-1], ["3"], [True]])
def test_a_manifest_cannot_make_it_allocate(local: WeightsStore, tmp_path: Path, shape: list[object]) -> None:
    publish(local, 1)
    path = tmp_path / "versions/00000001/manifest.json"
    values = json.loads(path.read_bytes())
    values["tensors"]["onerec.w"] = ["F32", shape]
    path.write_text(json.dumps(values))
    with pytest.raises(CorruptWeightsError):
        local.read(1)


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "../1/full.safetensors",
        "versions/../../x",
        "versions/00000001/../00000001/x",
        "file:///etc/passwd",
        "s3://bucket/versions/00000001/x",
        "http://127.0.0.1/versions/00000001/x",
        "versions/00000001/\0",
        "versions\\00000001\\x",
        "",
    ],
)
def test_uris_outside_the_store_are_refused(store: WeightsStore, uri: str) -> None:
    with pytest.raises(OutsideStoreError, match="outside the weights store"):
        store.check_uri(uri, 1)


def test_absolute_uris_inside_the_store_are_taken(local: WeightsStore, tmp_path: Path) -> None:
    local.check_uri(f"file://{tmp_path}/versions/00000001/full.safetensors", 1)
    local.check_uri(f"{tmp_path}/versions/00000001/full.safetensors", 1)
    with pytest.raises(OutsideStoreError):
        local.check_uri(f"{tmp_path}-other/versions/00000001/full.safetensors", 1)
    with pytest.raises(CorruptWeightsError, match="no file of version 2"):
        local.check_uri("versions/00000001/full.safetensors", 2)


def test_missing_versions_and_stores_say_so(store: WeightsStore, tmp_path: Path) -> None:
    assert store.versions() == []
    assert store.collect(1) == []
    with pytest.raises(VersionMissingError, match="no versions/00000007"):
        store.read(7)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        WeightsStore(str(blocked)).write_full(1, weights())


def test_a_failed_write_leaves_nothing_behind(local: WeightsStore, tmp_path: Path) -> None:
    publish(local, 1)
    target = tmp_path / "versions/00000002"
    target.mkdir()
    (target / f"full-{digest(weights(2))[:12]}.safetensors").mkdir()  # what is to be renamed cannot take its place
    with pytest.raises(StoreUnreachableError):
        local.write_full(2, weights(2))
    assert local.versions() == [1]
    assert not list(target.glob("*.part"))


def test_collect_keeps_the_newest_the_pinned_the_seed_and_their_bases(store: WeightsStore) -> None:
    publish(store, 16, full_every=4)  # full: 1, 5, 9, 13
    assert store.collect(keep=2, pinned=[7]) == [2, 3, 4, 8, 9, 10, 11, 12]
    assert store.versions() == [1, 5, 6, 7, 13, 14, 15, 16]
    for version in store.versions():
        assert same(store.read(version), weights(version))
    assert WeightsStore(store.folder.uri).collect(keep=2) == [5, 6, 7]


def test_collect_removes_what_a_crash_left(store: WeightsStore) -> None:
    publish(store, 1)
    store.folder.write("versions/00000002/full-000000000000.safetensors", b"never announced")
    store.folder.write("versions/00000004/full-000000000000.safetensors", b"being written now")
    store.write_full(3, weights(3))
    assert store.versions() == [1, 3]
    assert store.collect(keep=5) == [2]
    assert store.folder.names("versions") == ["00000001", "00000003", "00000004"]


def test_a_reader_during_publishing_sees_whole_versions_only(local: WeightsStore) -> None:
    reader = WeightsStore(local.folder.uri)
    have: Loaded | None = None
    for version in range(1, 8):
        local.write_full(version, weights(version)) if version == 1 else local.write_delta(
            version, version - 1, weights(version - 1), weights(version)
        )
        have = reader.read(version, have)
        assert same(have, weights(version))
