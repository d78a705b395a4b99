"""Versions as records: what a publisher puts into a manifest's facts, and the ModelVersion made of it again.

Topic model-versions is compacted, so that it holds the newest version only; the manifests hold all.
"""

from __future__ import annotations

from typing import Any

from onerec.weights.errors import CorruptWeightsError
from onerec.weights.manifest import Manifest
from schemas.bounds import violation
from schemas.records import ModelVersion, TopicOffset, VersionKind, VersionStatus

SERVING_SUFFIX = "#serving"
"""Put behind the model's name it makes the key of directives on model-versions."""


def facts_of(record: ModelVersion) -> dict[str, Any]:
    """What the manifest keeps of a ModelVersion besides what the store knows itself."""
    return {
        "model": record.model,
        "step": record.step,
        "preset": record.preset,
        "codebook_version": record.codebook_version,
        "metrics": dict(record.metrics),
        "offsets": [[offset.topic, offset.partition, offset.next_offset] for offset in record.offsets],
    }


def record_of(manifest: Manifest, status: VersionStatus = VersionStatus.PUBLISHED) -> ModelVersion:
    """The ModelVersion of a manifest; what it newly learned is not kept. Raises CorruptWeightsError."""
    facts = manifest.facts
    try:
        record = ModelVersion(
            model=str(facts["model"]),
            version=manifest.version,
            parent=manifest.parent,
            step=int(facts["step"]),
            kind=VersionKind(manifest.kind),
            uri=f"versions/{manifest.version:08d}/{manifest.file}",
            sha256=manifest.sha256,
            size_bytes=manifest.size_bytes,
            offsets=tuple(
                TopicOffset(topic=str(topic), partition=int(partition), next_offset=int(offset))
                for topic, partition, offset in facts.get("offsets", ())
            ),
            metrics=dict(facts.get("metrics", {})),
            status=status,
            created_ms=manifest.created_ms,
            learned_produced_ms=b"",
            preset=str(facts["preset"]),
            codebook_version=int(facts["codebook_version"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptWeightsError(
            f"The manifest of version {manifest.version} lacks facts: {error!r}.", "Publish the version again."
        ) from error
    if broken := violation(record, manifest.created_ms):  # whatever this machine's clock says
        raise CorruptWeightsError(
            f"The manifest of version {manifest.version} is no version's: {broken[1]}.", "Publish the version again."
        )
    return record
