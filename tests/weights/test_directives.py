"""Which version is served according to the records of model-versions, and what collection leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from onerec.kafka import metadata
from onerec.settings import KafkaSettings, StoreSettings
from onerec.weights.directives import collect, direct, read_choice
from onerec.weights.errors import VersionMissingError
from onerec.weights.serving import ServingChoice
from schemas.records import ModelVersion, VersionKind, VersionStatus
from tests.inference.publishing import Publisher, constant_weights, settings_of


def record(version: int, status: VersionStatus = VersionStatus.PUBLISHED) -> ModelVersion:
    return ModelVersion(
        model="m",
        version=version,
        step=1,
        kind=VersionKind.FULL,
        uri="",
        sha256="",
        size_bytes=0,
        offsets=(),
        metrics={},
        status=status,
        created_ms=0,
        learned_produced_ms=b"",
        preset="tiny",
        codebook_version=1,
    )


PUBLISHED, PINNED, ROLLED_BACK, UNPINNED = VersionStatus


@pytest.mark.parametrize(
    ("records", "version"),
    [
        ([], None),
        ([(1, PUBLISHED), (2, PUBLISHED)], 2),
        ([(2, PUBLISHED), (1, PUBLISHED)], 2),
        ([(2, PUBLISHED), (1, PINNED), (3, PUBLISHED)], 1),
        ([(2, PUBLISHED), (1, PINNED), (3, PUBLISHED), (3, UNPINNED)], 3),
        ([(2, PUBLISHED), (1, ROLLED_BACK)], 1),
        ([(2, PUBLISHED), (1, ROLLED_BACK), (2, PUBLISHED)], 1),
        ([(2, PUBLISHED), (1, ROLLED_BACK), (3, PUBLISHED)], 3),
        ([(2, PUBLISHED), (1, ROLLED_BACK), (2, PINNED), (3, PUBLISHED)], 2),
        ([(2, PUBLISHED), (1, PINNED), (2, ROLLED_BACK), (3, PUBLISHED)], 3),
        ([(1, PINNED)], 1),
    ],
)
def test_the_version_to_serve(records: list[tuple[int, VersionStatus]], version: int | None) -> None:
    choice = ServingChoice()
    for number, status in records:
        choice.apply(record(number, status))
    assert choice.version == version


@pytest.mark.broker
def test_collection_leaves_what_is_served(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_of(kafka, tmp_path)
    settings = settings.model_copy(update={"store": StoreSettings(uri=settings.store.uri, keep_versions=2)})
    publisher = Publisher(settings)
    for version in range(1, 7):
        publisher.publish(version, constant_weights(version))
        publisher.restart()  # each one full
    assert collect(settings, publisher.store) == [2, 3, 4]
    for version in range(7, 9):
        publisher.publish(version, constant_weights(version))
        publisher.restart()
    direct(settings, 5, VersionStatus.PINNED)
    assert read_choice(settings).pinned == 5
    assert collect(settings, publisher.store) == [6]
    assert publisher.store.versions() == [1, 5, 7, 8]
    with pytest.raises(VersionMissingError):
        direct(settings, 6, VersionStatus.PINNED)


@pytest.mark.broker
def test_nothing_is_collected_where_the_directives_are_not_known(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    settings = settings_of(kafka.model_copy(update={"topic_prefix": "nowhere-"}), tmp_path)
    store = Publisher(settings).store
    for version in range(1, 5):
        store.write_full(version, constant_weights(version))
    settings = settings.model_copy(update={"store": StoreSettings(uri=settings.store.uri, keep_versions=2)})
    assert collect(settings, store) == []
    assert store.versions() == [1, 2, 3, 4]
