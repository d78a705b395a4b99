"""The codebook job on a broker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onerec.errors import DependencyMissingError, SettingsError
from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings, ModelSettings, Settings, StoreSettings
from onerec.weights.folder import Folder
from schemas.records import DeadLetter, Item
from schemas.topics import DEAD_LETTERS, ITEMS, id_key
from stream.tokenizer import codebook as codebooks
from stream.tokenizer.job import fit_codebook, usable
from tests.stream.tokenizer.items import embeddings, item

pytestmark = pytest.mark.broker


def settings_of(kafka: KafkaSettings, folder: Path) -> Settings:
    return Settings(kafka=kafka, store=StoreSettings(uri=str(folder)), model=ModelSettings(preset="tiny"))


def publish(kafka: KafkaSettings, *items: Item) -> None:
    writer = RecordWriter(kafka)
    for each in items:
        writer.send(ITEMS, id_key(each.item_id), each)
    writer.flush(60)


def test_fits_saves_and_makes_no_version_for_nothing(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings, folder = settings_of(kafka, tmp_path), Folder(str(tmp_path))
    with pytest.raises(DependencyMissingError, match="Publish items first"):
        fit_codebook(settings)
    points = embeddings(60)
    writer = RecordWriter(kafka)
    writer.producer.produce(kafka.topic_prefix + ITEMS.name, b"rubbish", b"0")
    writer.flush(60)
    publish(kafka, item(7, points[0]), *(item(row, points[row]) for row in range(59, -1, -1)))
    publish(kafka, item(1001, embeddings(1, width=5)[0]), item(1002, np.full(4, np.nan, np.float32)))
    report = fit_codebook(settings)
    assert (report.version, report.items, report.skipped_items, report.levels, report.codes) == (1, 60, 3, 3, 8)
    book = codebooks.load(folder)
    assert book.item_ids.tolist()[:3] == [7, 59, 58]  # the order in which they were first published
    assert fit_codebook(settings).version == 1
    assert codebooks.versions(folder) == [1]
    publish(kafka, item(60, points[3]))
    assert fit_codebook(settings).version == 2
    letters: list[DeadLetter] = []
    follower = TopicFollower(kafka, DEAD_LETTERS, lambda received: letters.append(received.record), service="test")
    follower.catch_up(60)
    follower.close()
    assert letters == []  # the tokenizer refuses them, once


def test_the_newest_record_of_an_item_counts_and_the_width_is_the_usual_one() -> None:
    wide = item(3, embeddings(1, width=5)[0])
    found = usable([item(1, embeddings(1)[0]), item(2, embeddings(1)[0], tags=()), wide])
    assert found.item_ids.tolist() == [1, 2]
    assert found.first_tags == ["a", ""]
    assert found.embeddings.shape == (2, 4)
    assert found.skipped == 1


def test_a_preset_that_does_not_exist_is_named(tmp_path: Path, kafka: KafkaSettings) -> None:
    publish(kafka, item(1, embeddings(1)[0]))
    with pytest.raises(SettingsError, match="huge"):
        fit_codebook(Settings(kafka=kafka, store=StoreSettings(uri=str(tmp_path)), model=ModelSettings(preset="huge")))
