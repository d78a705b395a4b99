"""Items on a bus in memory, and tokenizers that live and die on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onerec.kafka import clients
from onerec.settings import Settings, load_settings
from onerec.weights.folder import Folder
from schemas.records import ItemTokens
from schemas.topics import ITEM_TOKENS, ITEMS, id_key
from stream.tokenizer import codebook as codebooks
from stream.tokenizer.job import fit_codebook
from stream.tokenizer.service import _Service
from tests.recovery import disk
from tests.recovery.bus import Bus
from tests.recovery.bus_clients import connect
from tests.recovery.faust_on_bus import BusHost
from tests.recovery.picture import Picture
from tests.recovery.topics import ends, not_done, publish, records
from tests.stream.tokenizer.items import WIDTH, embeddings, item

FITTED, LATER = 12, 12
"""Items that the codebook is fitted on, and items that come once the tokenizer is ready."""


VALUES = embeddings(FITTED + LATER)
VALUES[FITTED + 1] = VALUES[FITTED]  # both want one id: the first to come has it, though its record is compacted later
WIDER = embeddings(1, width=WIDTH + 1)[0]
"""An embedding of another model."""


def _items(*numbers: int) -> list[tuple[bytes, Any]]:
    return [(id_key(number), item(number, VALUES[number])) for number in numbers]


def _later() -> list[tuple[bytes, Any]]:
    """New items, a known one as it was, two changed, and bad ones."""
    stream = _items(*range(FITTED, FITTED + LATER))
    stream[2:2] = _items(3)
    stream.insert(5, (id_key(4), item(4, VALUES[4], duration_ms=7777)))
    stream.insert(6, (id_key(201), b"no avro"))
    stream.insert(9, (id_key(100), item(100, np.full(WIDTH, np.nan, np.float32))))
    stream.append((id_key(101), item(101, WIDER)))
    stream.append((id_key(FITTED), item(FITTED, VALUES[FITTED], duration_ms=7777)))
    return stream


EARLY = [*_items(*range(FITTED)), (id_key(202), b"rubbish"), (id_key(102), item(102, WIDER))]
STREAM = EARLY + _later()
GOOD = FITTED + LATER


class TokenizerSystem:
    """A bus with items on it, good and bad, and tokenizers that run and die one after another."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        batch: int = 2,
        keeps_in_flight: int = 0,
        left: Picture | None = None,
    ) -> None:
        """A fresh one, or what an earlier one's crash and the broker's compaction have left."""
        self.folder = folder
        self.settings: Settings = load_settings(
            store={"uri": str(folder / "store"), "state_dir": str(folder / "state")},
            model={"preset": "tiny"},
            stream={"tokenizer": {"max_batch": 3}},
        )
        self.kafka = self.settings.kafka
        self.store = Folder(self.settings.store.uri)
        self.bus = Bus(batch=batch, keeps_in_flight=keeps_in_flight) if left is None else left.bus
        if left is None:
            folder.mkdir(parents=True)
            self.bus.make_topics(self.kafka)
            publish(self.bus, self.kafka, ITEMS, EARLY)
        else:
            left.folder.rename(folder)
            self.bus.compact(clients.topic_name(self.kafka, ITEMS))
            self.bus.compact(clients.topic_name(self.kafka, ITEM_TOKENS))
        self._found = self._file()
        self.bus.before_step = self.check
        connect(monkeypatch, self.bus)
        disk.watch(monkeypatch, self.bus, folder)

    def live(self) -> None:
        """The codebook's job where there is no codebook, then one tokenizer until all items are done."""
        if not codebooks.versions(self.store):
            fit_codebook(self.settings)
        host = BusHost("tokenizer", self.settings, self, self.bus)
        host.live(lambda: _Service(host).start(), self._publish_later)

    def is_set(self) -> bool:
        """As `Stop`."""
        return False

    def ready(self) -> None:
        """As `Stop`."""

    def codebook(self) -> str:
        """The SHA-256 of the one version that there is."""
        assert codebooks.versions(self.store) == [1]
        assert self._found in (b"", self._file()), "a codebook is never rewritten"
        return codebooks.load(self.store).sha256()

    def tokens(self) -> list[ItemTokens]:
        """All that was ever given, in order."""
        return records(self.bus, self.kafka, ITEM_TOKENS)

    def check(self, step: str) -> None:
        """No item has two ids, no id two items, and what is committed has been given or refused."""
        given: dict[int, tuple[int, ...]] = {}
        for tokens in self.tokens():
            assert given.setdefault(tokens.item_id, tokens.codes) == tokens.codes, f"{step}: {tokens.item_id}"
        assert len(set(given.values())) == len(given), step
        lost = not_done(self.bus, self.kafka, ITEMS, lambda item: item.item_id in given)
        assert not lost, f"{step}: these items are committed, and neither tokenised nor refused: {lost}"

    def _file(self) -> bytes:
        """The codebook as it is stored; empty where there is none."""
        return self.store.read("codebooks/1.safetensors") if codebooks.versions(self.store) else b""

    def _publish_later(self) -> bool:
        """Publish the next items; whether all of them have been."""
        published = ends(self.bus, self.kafka, ITEMS)[0]
        publish(self.bus, self.kafka, ITEMS, STREAM[published : published + 2])
        return published >= len(STREAM)
