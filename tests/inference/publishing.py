"""A stand-in for the trainer: publishes versions of the tiny model whose content says which version it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from onerec.kafka.writer import RecordWriter
from onerec.model.onerec import OneRec
from onerec.model.presets import preset
from onerec.model.reward import RewardModel
from onerec.settings import KafkaSettings, Settings, load_settings
from onerec.weights.record import SERVING_SUFFIX, facts_of
from onerec.weights.signature import signer_of
from onerec.weights.store import WeightsStore
from schemas.packed import pack_longs
from schemas.records import ModelVersion, VersionKind, VersionStatus
from schemas.topics import MODEL_VERSIONS


def settings_of(kafka: KafkaSettings, folder: Path, decoder: str = "encoder-decoder", **inference: object) -> Settings:
    """Settings for the tiny model with a store below `folder`."""
    return load_settings(
        kafka=kafka.model_dump(),
        store={"uri": str(folder / "store"), "state_dir": str(folder / "state")},
        model={"preset": "tiny", "decoder": decoder},
        inference=inference,
    )


def random_weights(seed: int = 0, scale: float = 1.0, name: str = "tiny") -> dict[str, Tensor]:
    """The tiny model, or another preset, with random weights; `scale` above 1 makes its choices more decided."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = preset(name)
        modules = {"onerec": OneRec(config), "reward": RewardModel(config)}
    return {
        f"{prefix}.{name}": (tensor * scale if tensor.dim() > 1 else tensor).bfloat16()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def constant_weights(value: float) -> dict[str, Tensor]:
    """The tiny model with one number everywhere, so that a mixture of two versions would show."""
    return {name: torch.full_like(tensor, value) for name, tensor in random_weights().items()}


class Publisher:
    """Writes versions to the store and announces them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = WeightsStore(settings.store.uri, signer=signer_of(settings.store))
        self._writer = RecordWriter(settings.kafka)
        self._parent: tuple[int, Mapping[str, Tensor]] | None = None

    def publish(
        self, version: int, tensors: Mapping[str, Tensor], learned_ms: tuple[int, ...] = (), *, announce: bool = True
    ) -> ModelVersion:
        """A full version first, deltas after it; what was written, before it is damaged by the test."""
        draft = self._record(version, VersionStatus.PUBLISHED, learned_ms)
        facts = facts_of(draft)
        if self._parent is None:
            artifact, parent = self.store.write_full(version, tensors, facts), None
        else:
            parent = self._parent[0]
            artifact = self.store.write_delta(version, parent, self._parent[1], tensors, facts)
        self._parent = version, tensors
        kind = VersionKind.FULL if parent is None else VersionKind.DELTA
        record = ModelVersion(
            **{name: getattr(draft, name) for name in draft.__slots__}
            | {"parent": parent, "kind": kind, "uri": artifact.uri}
            | {"sha256": artifact.sha256, "size_bytes": artifact.size_bytes}
        )
        if announce:
            self.announce(record)
        return record

    def restart(self) -> None:
        """Forget the parent: the next version is a full one."""
        self._parent = None

    def announce(self, record: ModelVersion) -> None:
        """Put a version on model-versions."""
        self._writer.send(MODEL_VERSIONS, record.model.encode(), record)
        self._writer.flush(60)

    def direct(self, version: int, status: VersionStatus) -> None:
        """Put a directive on model-versions."""
        record = self._record(version, status, ())
        self._writer.send(MODEL_VERSIONS, f"{record.model}{SERVING_SUFFIX}".encode(), record)
        self._writer.flush(60)

    def _record(self, version: int, status: VersionStatus, learned_ms: tuple[int, ...]) -> ModelVersion:
        return ModelVersion(
            model=self.settings.model.name,
            version=version,
            step=version * 10,
            kind=VersionKind.FULL,
            uri="",
            sha256="",
            size_bytes=0,
            offsets=(),
            metrics={},
            status=status,
            created_ms=time.time_ns() // 1_000_000,
            learned_produced_ms=pack_longs(learned_ms),
            preset=self.settings.model.configuration,
            codebook_version=1,
        )
