"""Settings of what lies on disk and of the metrics endpoint."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from onerec.settings.table import Table


class StoreSettings(Table):
    """Where weights, codebooks, checkpoints and local state lie."""

    uri: str = Field("runs/store", repr=False, description="Weights store: a folder or any fsspec URI.")
    state_dir: Path = Field(Path("runs/state"), description="Local state: RocksDB and checkpoints. One a process.")
    keep_versions: int = Field(200, ge=2, description="Versions kept in the store besides pinned ones and bases.")
    signing_key_file: Path | None = Field(
        None,
        description="The trainer signs versions with it: an Ed25519 private key (PEM), or 32 bytes and more for HMAC.",
    )
    verify_key_file: Path | None = Field(
        None,
        description="Worker and sampler serve only what it verifies: the Ed25519 public key (PEM), or the HMAC key.",
    )


class MetricsSettings(Table):
    """The Prometheus endpoint of a service."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="0 for any free port.")
