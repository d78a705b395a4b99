"""Who made a version: signatures over manifests, by Ed25519 or HMAC-SHA256.

What is signed is the whole manifest but the signature itself, in one canonical form: model, version, kind, parent and
its digest, the digest of the full weights, names, dtypes and shapes of all tensors, and the publisher's facts. So
neither an older version nor another model's can be passed off as a new one, and a file cannot be exchanged.

With Ed25519 readers hold only the public key and cannot sign; an HMAC key signs and verifies:

    openssl genpkey -algorithm ed25519 -out signing.pem && openssl pkey -in signing.pem -pubout -out verify.pem
    openssl rand -hex 32 > versions.key
"""

from __future__ import annotations

import base64
import hmac
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from onerec.errors import SettingsError
from onerec.secrets import remember
from onerec.settings import StoreSettings
from onerec.weights.errors import WrongSignatureError
from onerec.weights.manifest import Manifest

DOMAIN = b"onerec version 1\0"
"""Before what is signed, so that the key's signatures of other things are none of versions."""
ED25519, HMAC = "ed25519", "hmac-sha256"
MIN_HMAC_BYTES = 32
_PEM = b"-----BEGIN "


class Signer(Protocol):
    """Signs manifests."""

    def sign(self, manifest: Manifest) -> str:
        """The signature: algorithm, colon, base64."""


class Verifier(Protocol):
    """Verifies manifests."""

    def check(self, manifest: Manifest) -> None:
        """Raise WrongSignatureError where the manifest is not signed with the key, or was changed since."""


def signer_of(store: StoreSettings) -> Signer | None:
    """The trainer's signer; None where no key is set. Raises SettingsError for a key that cannot be used."""
    path = store.signing_key_file
    if path is None:
        return None
    setting, data = "store.signing_key_file", _read(path, "store.signing_key_file")
    if not data.startswith(_PEM):
        return _HmacKey(_hmac_key(data, setting, path))
    remember(line.decode(errors="replace") for line in data.splitlines() if not line.startswith(b"-----"))
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(setting, path, "it is no private key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(setting, path, "it is no Ed25519 private key")
    return _PrivateKey(key)


def verifier_of(store: StoreSettings) -> Verifier | None:
    """The readers' verifier; None where no key is set. Raises SettingsError for a key that cannot be used."""
    path = store.verify_key_file
    if path is None:
        return None
    setting, data = "store.verify_key_file", _read(path, "store.verify_key_file")
    if not data.startswith(_PEM):
        return _HmacKey(_hmac_key(data, setting, path))
    if b"PRIVATE KEY" in data:
        raise _unusable(setting, path, "it is the private key, which belongs to the trainer alone")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(setting, path, "it is no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(setting, path, "it is no Ed25519 public key")
    return _PublicKey(key)


class _HmacKey:
    """Signs and verifies with one secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, manifest: Manifest) -> str:
        return _encoded(HMAC, hmac.digest(self._key, _message(manifest), "sha256"))

    def check(self, manifest: Manifest) -> None:
        if not hmac.compare_digest(_decoded(HMAC, manifest), hmac.digest(self._key, _message(manifest), "sha256")):
            raise _wrong(manifest)


class _PrivateKey:
    """Signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, manifest: Manifest) -> str:
        return _encoded(ED25519, self._key.sign(_message(manifest)))


class _PublicKey:
    """Verifies."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    def check(self, manifest: Manifest) -> None:
        try:
            self._key.verify(_decoded(ED25519, manifest), _message(manifest))
        except InvalidSignature as error:
            raise _wrong(manifest) from error


def _message(manifest: Manifest) -> bytes:
    return DOMAIN + manifest.canonical()


def _encoded(algorithm: str, signature: bytes) -> str:
    return f"{algorithm}:{base64.b64encode(signature).decode()}"


def _decoded(algorithm: str, manifest: Manifest) -> bytes:
    """The signature's bytes. Raises WrongSignatureError where there is none by this algorithm."""
    if manifest.signature is None:
        raise WrongSignatureError(
            f"Version {manifest.version} is not signed.", "Set store.signing_key_file for the trainer."
        )
    made_by, _, text = manifest.signature.partition(":")
    if made_by != algorithm:
        raise WrongSignatureError(
            f"Version {manifest.version} is signed by {made_by[:20]!r}, the key here is of {algorithm}.",
            "Set store.verify_key_file to the key that belongs to the trainer's.",
        )
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # no base64, or not even ASCII
        raise _wrong(manifest) from error


def _wrong(manifest: Manifest) -> WrongSignatureError:
    return WrongSignatureError(
        f"The signature of version {manifest.version} is wrong: another key made it, or its manifest was changed.",
        "See who writes to the store; set store.verify_key_file to the key that belongs to the trainer's.",
    )


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(setting, path, str(error)) from error


def _hmac_key(data: bytes, setting: str, path: Path) -> bytes:
    key = data.strip()
    if len(key) < MIN_HMAC_BYTES:
        raise _unusable(setting, path, f"it has {len(key)} bytes, {MIN_HMAC_BYTES} are the least for HMAC")
    remember([key.decode(errors="replace")])
    return key


def _unusable(setting: str, path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"The key of {setting}, {path}, cannot be used: {why}.", "See docs/security.md for how to make keys."
    )
