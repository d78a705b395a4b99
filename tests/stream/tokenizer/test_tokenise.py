"""Items to tokens: same item, same id; what is news; what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from schemas.reasons import Reason
from schemas.records import Item, ItemTokens
from stream.tokenizer.tokenise import Refusal, Tokenised, Tokenizer
from tests.stream.tokenizer.items import codebook, embeddings, item


def one(tokenizer: Tokenizer, of: Item) -> Tokenised:
    (outcome,) = tokenizer.tokenise([of])
    assert isinstance(outcome, Tokenised)
    return outcome


def items(count: int, seed: int = 0, first_id: int = 0) -> list[Item]:
    return [item(first_id + row, values) for row, values in enumerate(embeddings(count, seed))]


def test_items_of_the_fit_have_their_stored_ids_and_new_ones_the_nearest_free() -> None:
    book = codebook(60)
    tokenizer = Tokenizer(book)
    stored = [one(tokenizer, of) for of in items(60)]
    assert [made.tokens.codes for made in stored] == [book.stored()[row] for row in range(60)]
    assert all(made.new and made.news and not made.moved for made in stored)
    fresh = tokenizer.tokenise(items(100, seed=1, first_id=1000))
    argmin = book.assign(embeddings(100, seed=1)).tolist()
    for made, wanted in zip(fresh, argmin, strict=True):
        assert isinstance(made, Tokenised)
        assert made.moved == (made.tokens.codes != tuple(wanted))
    all_codes = [made.tokens.codes for made in [*stored, *fresh] if isinstance(made, Tokenised)]
    assert len(set(all_codes)) == 160
    assert 0 < sum(made.moved for made in fresh if isinstance(made, Tokenised)) < 100


def test_a_known_item_keeps_its_id_and_is_news_only_when_its_tokens_change() -> None:
    tokenizer = Tokenizer(codebook())
    first = one(tokenizer, item(500, embeddings(1, 7)[0]))
    assert one(tokenizer, item(500, embeddings(1, 7)[0])).news  # not published yet: a failed send is sent again
    tokenizer.mark_published(first.tokens)
    again = one(tokenizer, item(500, embeddings(1, 8)[0]))  # another embedding
    assert (again.tokens, again.news, again.new) == (first.tokens, False, False)
    longer = one(tokenizer, item(500, embeddings(1, 7)[0], duration_ms=2000, tags=("b",)))
    assert (longer.news, longer.new, longer.tokens.codes) == (True, False, first.tokens.codes)
    assert (longer.tokens.duration_ms, longer.tokens.tags) == (2000, ("b",))
    assert tokenizer.published == 1


def test_restoring_gives_the_same_state_whatever_comes_again() -> None:
    before = Tokenizer(codebook())
    made = [one(before, of) for of in items(80, seed=3, first_id=900)]
    after = Tokenizer(codebook())
    assert all(after.restore(each.tokens) is None for each in made)
    assert after.published == 80
    again = after.tokenise(items(80, seed=3, first_id=900)[::-1])
    assert [each.tokens for each in again if isinstance(each, Tokenised)] == [each.tokens for each in made][::-1]
    assert not any(each.news for each in again if isinstance(each, Tokenised))


def test_restoring_leaves_out_what_contradicts() -> None:
    tokenizer = Tokenizer(codebook())
    taken = codebook().stored()[0]
    tokens = ItemTokens(item_id=77, codes=taken, codebook_version=1, duration_ms=0, tags=(), created_ms=0)
    cases = {
        Reason.DUPLICATE_CODES: [tokens, replace(tokens, codes=(0, 0)), replace(tokens, codes=(0, 0, 99))],
        Reason.STALE_CODEBOOK: [replace(tokens, codebook_version=2)],
    }
    for reason, records in cases.items():
        for record in records:
            refusal = tokenizer.restore(record)
            assert refusal is not None
            assert refusal.reason is reason
    assert tokenizer.published == 0
    assert one(tokenizer, item(77, embeddings(1)[0])).tokens.codes != taken


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (item(1, embeddings(1, width=5)[0]), Reason.WRONG_WIDTH),
        (replace(item(1, embeddings(1)[0]), embedding=b"123"), Reason.WRONG_WIDTH),
        (replace(item(1, embeddings(1)[0]), embedding=b""), Reason.WRONG_WIDTH),
        (item(1, np.array([0, np.nan, 0, 0], np.float32)), Reason.NON_FINITE),
        (item(1, np.array([0, -np.inf, 0, 0], np.float32)), Reason.NON_FINITE),
        (item(1, embeddings(1)[0], duration_ms=-1), Reason.OUT_OF_BOUNDS),
    ],
)
def test_bad_items_are_refused_among_good_ones(bad: Item, reason: Reason) -> None:
    good = items(2, seed=4, first_id=100)
    first, refusal, last = Tokenizer(codebook()).tokenise([good[0], bad, good[1]])
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert "item 1 " in refusal.detail
    assert isinstance(first, Tokenised)
    assert isinstance(last, Tokenised)


def test_a_full_catalogue_refuses_and_goes_on() -> None:
    tokenizer = Tokenizer(codebook(8, levels=3, codes=2))
    refusal, known = tokenizer.tokenise([item(99, embeddings(1)[0]), item(3, embeddings(8)[3])])
    assert isinstance(refusal, Refusal)
    assert "2^3" in refusal.detail
    assert isinstance(known, Tokenised)
