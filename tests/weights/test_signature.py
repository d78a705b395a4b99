"""Signed versions: what is not signed with the trusted key, or was changed since, is never handed out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onerec.errors import SettingsError
from onerec.settings import StoreSettings
from onerec.weights.errors import CorruptWeightsError, OutsideStoreError, WrongSignatureError
from onerec.weights.signature import signer_of, verifier_of
from onerec.weights.store import WeightsStore
from onerec.weights.tensors import digest

FACTS = {"model": "m", "step": 3, "metrics": {"loss": 0.1}, "preset": "tiny", "codebook_version": 1, "umlaut": "ü"}
MANIFEST = "versions/{:08d}/manifest.json"


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def ed25519(folder: Path, name: str = "one") -> StoreSettings:
    """Keys made as the documentation says."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return StoreSettings(uri=str(folder / "store"), signing_key_file=private, verify_key_file=public)


def hmac_key(folder: Path, name: str = "one") -> StoreSettings:
    key = folder / f"{name}.key"
    openssl("rand", "-hex", "-out", key, "32")
    return StoreSettings(uri=str(folder / "store"), signing_key_file=key, verify_key_file=key)


KINDS = {"ed25519": ed25519, "hmac": hmac_key}
Make = Callable[[Path, str], StoreSettings]


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]


@pytest.fixture
def keys(make: Make, tmp_path: Path) -> StoreSettings:
    return make(tmp_path, "one")


def weights(step: int) -> dict[str, Tensor]:
    return {"w": torch.full((8, 4), float(step)).bfloat16(), "n": torch.tensor(step)}


def writer(keys: StoreSettings) -> WeightsStore:
    return WeightsStore(keys.uri, signer=signer_of(keys))


def reader(keys: StoreSettings) -> WeightsStore:
    return WeightsStore(keys.uri, verifier=verifier_of(keys))


def publish(store: WeightsStore) -> None:
    store.write_full(1, weights(1), FACTS)
    store.write_delta(2, 1, weights(1), weights(2), FACTS)


def test_what_the_trainer_signs_readers_take(keys: StoreSettings) -> None:
    publish(writer(keys))
    store = reader(keys)
    assert digest(store.read(2).tensors) == digest(weights(2))
    assert store.manifest(1).facts == FACTS
    assert WeightsStore(keys.uri).read(2).sha256 == digest(weights(2)), "readers without a key need none"


def test_unsigned_versions_are_refused_and_none_is_built_upon(keys: StoreSettings) -> None:
    publish(WeightsStore(keys.uri))
    with pytest.raises(WrongSignatureError, match="Version 2 is not signed"):
        reader(keys).read(2)
    writing = writer(keys)
    with pytest.raises(Exception, match=r"Version 2 is not signed.*full version"):
        writing.write_delta(3, 2, weights(2), weights(3), FACTS)
    writing.write_full(3, weights(3), FACTS)
    assert reader(keys).read(3).sha256 == digest(weights(3))


def test_another_key_is_refused(make: Make, keys: StoreSettings, tmp_path: Path) -> None:
    publish(writer(make(tmp_path, "another")))
    with pytest.raises(WrongSignatureError, match="signature of version 1 is wrong"):
        reader(keys).read(1)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"size_bytes": 1},
        {"created_ms": 1},
        {"file": "full-000000000000.safetensors"},
        {"tensors": {"w": ["F32", [8, 4]], "n": ["I64", []]}},
        {"kind": "delta", "parent": 1},
        {"facts": FACTS | {"model": "another"}},
        {"facts": FACTS | {"step": 4}},
        {"signature": "ed25519:AAAA"},
        {"signature": "hmac-sha256:AAAA"},
        {"signature": "hmac-sha256:%%%%"},
        {"signature": "ed25519:ä"},
        {"signature": "hmac-sha256:ä"},
        {"signature": ""},
    ],
)
def test_whatever_is_changed_in_a_manifest_shows(keys: StoreSettings, change: dict[str, Any]) -> None:
    store = writer(keys)
    publish(store)
    store.write_full(2, weights(5), FACTS)
    path = Path(keys.uri) / MANIFEST.format(2)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(WrongSignatureError):
        reader(keys).read(2)


def test_an_old_version_cannot_pass_for_a_new_one(keys: StoreSettings) -> None:
    publish(writer(keys))
    root = Path(keys.uri)
    shutil.copytree(root / "versions/00000001", root / "versions/00000003")
    with pytest.raises(CorruptWeightsError, match="it says version 1"):
        reader(keys).read(3)
    path = root / MANIFEST.format(3)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"version": 3}))
    with pytest.raises(WrongSignatureError):
        reader(keys).read(3)


def test_a_signed_delta_upon_an_unsigned_parent_is_refused(keys: StoreSettings) -> None:
    publish(writer(keys))
    path = Path(keys.uri) / MANIFEST.format(1)
    values = json.loads(path.read_bytes())
    del values["signature"]
    path.write_text(json.dumps(values))
    with pytest.raises(WrongSignatureError, match="Version 1 is not signed"):
        reader(keys).read(2)


def test_keys_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    good = ed25519(tmp_path)
    rsa, short, torn = tmp_path / "rsa.pem", tmp_path / "short", tmp_path / "torn.pem"
    openssl("genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024", "-out", rsa)
    short.write_text("too short\n")
    torn.write_text("-----BEGIN PRIVATE KEY-----\nrubbish\n")
    for path, why in (
        (rsa, "no Ed25519"),
        (short, "9 bytes"),
        (torn, "no private key"),
        (tmp_path / "none", "No such"),
    ):
        with pytest.raises(SettingsError, match=f"store.signing_key_file.*{why}") as raised:
            signer_of(StoreSettings(signing_key_file=path))
        assert raised.value.exit_code == 2
    with pytest.raises(SettingsError, match="the private key, which belongs to the trainer"):
        verifier_of(StoreSettings(verify_key_file=good.signing_key_file))
    with pytest.raises(SettingsError, match="no private key"):
        signer_of(StoreSettings(signing_key_file=good.verify_key_file))
    assert signer_of(StoreSettings()) is None
    assert verifier_of(StoreSettings()) is None


def test_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    store, outside = WeightsStore(str(tmp_path / "store")), tmp_path / "outside"
    publish(store)
    (tmp_path / "store/versions/00000001").rename(outside)
    for target in (outside, Path("../../outside")):
        link = tmp_path / "store/versions/00000001"
        link.symlink_to(target)
        with pytest.raises(OutsideStoreError, match="leads out of the weights store by a link"):
            store.read(1)
        link.unlink()
    outside.rename(tmp_path / "store/versions/00000001")
    file = tmp_path / "store/versions/00000002" / store.manifest(2).file
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(OutsideStoreError):
        store.read(2)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "store")
    assert WeightsStore(str(tmp_path / "elsewhere")).read(1).version == 1, "the store itself may be a link"
