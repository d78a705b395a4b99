"""The sides that need no peer's packages do what their bench says, in their smallest form."""

from __future__ import annotations

import torch

from bench.benches.reward import Scores
from bench.clustering_sides import Balanced
from bench.codec_sides import Fastavro, Ours
from bench.decoding import growth, shapes
from onerec.model.onerec import OneRec


def test_both_codecs_read_the_same_records() -> None:
    for side in (Ours(records=20), Fastavro(records=20)):
        side.prepare()
        assert side.repeat().keys() == {"impressions", "actions", "sessions", "seconds"}


def test_decoding_over_a_grown_catalogue_finds_items_and_knows_their_bytes() -> None:
    """A few items cost more each: there are a hundred sets of tags whatever their number."""
    threads = torch.get_num_threads()
    side = growth.Grown(beam=2, batch=1, threads=threads, items=30_000)
    facts = side.prepare()
    assert 40 < facts["bytes_an_item"] < 60
    assert side.repeat()["invalid"] == 0


def test_experts_and_dense_layer_have_as_many_active_parameters() -> None:
    assert shapes.ACTIVE * shapes.EXPERT_HIDDEN == 704
    with torch.device("meta"):
        dense = OneRec(shapes.config())
    t5 = 7_543_296
    assert abs(sum(p.numel() for p in dense.parameters()) / t5 - 1) < 0.05


def test_candidates_together_and_one_by_one_have_the_same_rewards() -> None:
    threads = torch.get_num_threads()
    side = Scores(together=False, threads=threads, name="tiny")
    side.prepare()
    assert side.repeat()["seconds"] > 0


def test_clusters_of_the_tokenizer_are_of_one_size() -> None:
    side = Balanced(count=2_048, threads=1, sweeps=1)
    side.prepare()
    assert side.repeat()["largest"] == 1.0
