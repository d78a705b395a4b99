"""Everything that a step computes, piece by piece: SHA-256 of what goes forward and of every gradient.

`python -m tests.trainer.kernels` prints them as JSON, by piece, threads and dtype of products. Sizes are those of
preset small, so that kernels share their work among threads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.model import preference
from onerec.model.attention import CrossAttention, SelfAttention, causal_bias, padding_bias
from onerec.model.batches import HistoryBatch
from onerec.model.blocks import DecoderBlock, EncoderBlock
from onerec.model.dropout import Dropout
from onerec.model.likelihood import legal_log_softmax, ntp_loss, token_log_probs
from onerec.model.moe import SparseMoE
from onerec.model.norm import RMSNorm
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, preset
from onerec.model.reward import RewardModel
from onerec.model.rows import collect_rows, grouped_product, spread_rows
from onerec.model.swiglu import FeedForward
from onerec.settings import SeedSettings, TrainerSettings
from onerec.weights.tensors import digest
from schemas.records import ItemTokens
from tests.trainer import toy
from tests.trainer.test_step import stream
from trainer import objectives
from trainer.batches import PairBatch, SessionBatch
from trainer.budget import SampleCount
from trainer.environment import make_deterministic
from trainer.kernels import choose
from trainer.kernels import name as by
from trainer.samples import cut, sample_batch
from trainer.seed import train_seed
from trainer.state import TrainState, adamw
from trainer.step import apply_step

SMALL: ModelConfig = preset("small")
ITEMS = 1500
BATCH = 16
Piece = Callable[[torch.dtype], Iterable[Tensor]]


def catalogue() -> CatalogueSnapshot:
    """ITEMS items whose ids share prefixes."""
    fed = Catalogue(SMALL.levels, SMALL.codes)
    for item in range(ITEMS):
        codes = (item % 40, item // 40, 7 * item % SMALL.codes)
        record = ItemTokens(
            item_id=item, codes=codes, codebook_version=1, duration_ms=1000 * (1 + item % 90), tags=(), created_ms=0
        )
        assert fed.apply(record, item + 1) is None
    return fed.snapshot()


KNOWN = catalogue()
SAMPLES = cut(
    [
        HistoryArrays(
            np.random.default_rng(user).integers(0, ITEMS, 30),
            np.zeros(30, np.int64),
            np.random.default_rng(user).integers(0, 32, 30).astype(np.uint8),
        )
        for user in range(60)
    ],
    KNOWN,
    SMALL,
)
ROWS = np.arange(BATCH)


def sessions() -> SessionBatch:
    """A batch whose items and histories repeat, so that rows of embeddings get many gradients."""
    return sample_batch(SAMPLES, ROWS, KNOWN, SMALL)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers that want a gradient."""
    return torch.randn(*shape).to(dtype).requires_grad_()


def gradients(module: nn.Module, inputs: Iterable[Tensor], out: Tensor) -> list[Tensor]:
    """What came out, and the gradients of its weighted sum."""
    weight = torch.randn(out.shape).to(out.dtype)
    (out * weight).sum().backward()  # type: ignore[no-untyped-call]
    grads = [x.grad for x in (*inputs, *module.parameters()) if x.grad is not None]
    assert grads
    return [out.detach(), *grads]


def attention(dtype: torch.dtype) -> Iterable[Tensor]:
    x, memory = drawn(BATCH, 20, 128, dtype=dtype), drawn(BATCH, 51, 128, dtype=dtype)
    own, cross = SelfAttention(128, 4), CrossAttention(128, 4)
    mask = padding_bias(torch.arange(51) < torch.randint(1, 51, (BATCH, 1)))
    yield from gradients(own, [x], own(x, causal_bias(20, x.device)))
    yield from gradients(cross, [x, memory], cross(x, memory, mask))


def experts(dtype: torch.dtype) -> Iterable[Tensor]:
    moe = SparseMoE(128, 256, 8, 2)
    for parameter in moe.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = drawn(BATCH * 20, 128, dtype=dtype)
    yield from gradients(moe, [x], moe(x))
    moe.update_bias(1e-3)
    yield from (moe.load, moe.bias)


def grouped_products(dtype: torch.dtype) -> Iterable[Tensor]:
    x, weight = drawn(900, 128, dtype=dtype), drawn(5, 128, 64, dtype=dtype)
    places = torch.randperm(1800).view(900, 2)
    source = torch.empty(1800, dtype=torch.int64).scatter_(0, places.flatten(), torch.arange(900).repeat_interleave(2))
    rows = spread_rows(x, source, places)
    out = collect_rows(grouped_product(rows, weight, [1000, 0, 300, 1, 499]), places.flatten())
    return gradients(nn.Module(), [x, weight], out)


def norm_and_feed_forward(dtype: torch.dtype) -> Iterable[Tensor]:
    x, norm, ffn = drawn(BATCH, 50, 128), RMSNorm(128), FeedForward(128, 256)
    return gradients(nn.Sequential(norm, ffn), [x], ffn(norm(x, dtype)))


def dropout(dtype: torch.dtype) -> Iterable[Tensor]:
    x, layer = drawn(BATCH, 50, 128, dtype=dtype), Dropout(0.1)
    return gradients(layer, [x], layer(x))


def embeddings(dtype: torch.dtype) -> Iterable[Tensor]:
    """Few rows, each looked up thousands of times: as an embedding, as a gather, and as a gather of an axis."""
    table, index = nn.Embedding(30, 128), torch.randint(0, 30, (BATCH, 200, 3))
    yield from gradients(table, [], table(index).sum(2).to(dtype))
    rows = drawn(30, 128)
    yield from gradients(nn.Module(), [rows], rows[index[..., 0]])
    scores = drawn(BATCH, 30)
    yield from gradients(nn.Module(), [scores], scores.gather(1, index[..., 0]))
    yield from gradients(nn.Module(), [scores], scores.index_select(1, index[0, :, 0]))


def blocks(dtype: torch.dtype) -> Iterable[Tensor]:
    encoder, decoder = EncoderBlock(SMALL), DecoderBlock(SMALL)
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        nn.init.normal_(parameter, std=0.05)
    x, memory = drawn(BATCH, 20, 128), drawn(BATCH, 51, 128, dtype=dtype)
    stream, added = encoder(x, None, None, dtype)
    yield from gradients(encoder, [x], stream + added)
    states = decoder.attend(x, causal_bias(20, x.device), memory, None)
    yield from gradients(decoder, [x, memory], decoder.mix(states.flatten(0, 1), dtype))


def legal_softmax(dtype: torch.dtype) -> Iterable[Tensor]:
    leaves = torch.randint(0, ITEMS, (BATCH,))
    nodes, rank = KNOWN.trie.path_targets(leaves)
    for level in range(SMALL.levels):
        logits = drawn(BATCH, SMALL.codes, dtype=dtype)
        log_probs = legal_log_softmax(logits.float(), KNOWN.trie, level, nodes[:, level])
        yield from gradients(nn.Module(), [logits], log_probs.gather(1, rank[:, level, None]))


def next_token(dtype: torch.dtype) -> Iterable[Tensor]:
    model, batch = OneRec(SMALL), sessions()
    model.bf16 = dtype == torch.bfloat16
    loss = objectives.next_token_loss(model, batch, KNOWN.trie)
    assert loss is not None
    yield from gradients(model, [], loss)
    optimizer = adamw(model, 1e-3, TrainerSettings())
    yield clip_grad_norm_(model.parameters(), 0.1, foreach=True)
    optimizer.step()
    yield from model.state_dict().values()
    memory = model.encode(batch.history)
    yield ntp_loss(token_log_probs(model, memory, batch.leaves, KNOWN.trie), batch.weight)


def preferences(dtype: torch.dtype) -> Iterable[Tensor]:
    """The model under the paper's loss; the others by themselves."""
    histories = [HistoryArrays(np.arange(n), np.zeros(n, np.int64), np.ones(n, np.uint8)) for n in range(8)]
    history: HistoryBatch = history_batch(histories, KNOWN, SMALL)
    chosen, rejected = torch.randint(0, ITEMS, (2, 8, SMALL.session_items))
    pairs = PairBatch(history, chosen, rejected, torch.randn(8) - 60, torch.randn(8) - 60)
    model = OneRec(SMALL)
    model.bf16 = dtype == torch.bfloat16
    loss, _ = objectives.preference_loss(model, pairs, KNOWN.trie, TrainerSettings())
    yield from gradients(model, [], loss)
    for name in ("dpo", "ipo", "cdpo", "rdpo"):
        sums = [drawn(4096) for _ in range(4)]
        yield from gradients(nn.Module(), sums, getattr(preference, name)(*sums))
    one, many = [drawn(4096) for _ in range(2)], [drawn(4096, 3) for _ in range(2)]
    yield from gradients(nn.Module(), one + many, preference.sdpo(one[0], many[0], one[1], many[1]))
    yield from gradients(nn.Module(), one, preference.cpo(*one, tokens=15))
    yield from gradients(nn.Module(), one, preference.simpo(*one, tokens=15))


def rewards(dtype: torch.dtype) -> Iterable[Tensor]:
    del dtype  # it has no low precision
    for loss in (objectives.session_reward_loss, objectives.history_reward_loss):
        model = RewardModel(SMALL)
        yield from gradients(model, [], loss(model, sessions()))


def seed(dtype: torch.dtype) -> Iterable[Tensor]:
    """Whole steps of both models in one, two and three shards, optimizers and balance included."""
    config = dataclasses.replace(SMALL, bf16_seed=dtype == torch.bfloat16)
    for shards in (1, 2, 3):
        settings = TrainerSettings(seed=SeedSettings(batch=BATCH, threads=shards))
        state = TrainState.new(config, settings)
        train_seed(state, SAMPLES, KNOWN, SampleCount(BATCH), on_step=lambda _: None)
        yield from state.tensors().values()


def stream_steps(dtype: torch.dtype) -> Iterable[Tensor]:
    """Steps of the stream as the trainer takes them, with moments."""
    config = dataclasses.replace(toy.TINY, bf16=dtype == torch.bfloat16, dropout=0.1)
    state = TrainState.new(config, TrainerSettings(warmup_steps=0))
    for step_input in stream(4):
        apply_step(state, step_input)
    yield from state.tensors().values()


PIECES: dict[str, Piece] = {
    piece.__name__: piece
    for piece in (
        attention,
        experts,
        grouped_products,
        norm_and_feed_forward,
        dropout,
        embeddings,
        blocks,
        legal_softmax,
        next_token,
        preferences,
        rewards,
        seed,
        stream_steps,
    )
}


def digests() -> dict[str, str]:
    """Of each piece by torch with one and two threads, and with two by the compiled kernels where they are built.

    In float32, and in bfloat16 where the processor has it.
    """
    found = {}
    dtypes = [torch.float32, *([torch.bfloat16] if torch.cpu._is_avx512_bf16_supported() else [])]
    for compiled, threads in ((False, 1), (False, 2), (True, 2)):
        make_deterministic(threads)
        choose(TrainerSettings(compiled=compiled), torch.device("cpu"))
        for dtype in dtypes:
            for name, piece in PIECES.items():
                torch.manual_seed(5)
                sha = hashlib.sha256()
                for tensor in piece(dtype):
                    sha.update(digest({"": tensor.detach()}).encode())
                found[f"{name}, {by()}, {threads} threads, {str(dtype).removeprefix('torch.')}"] = sha.hexdigest()
    return found


def main() -> None:
    """Twice in one process."""
    print(json.dumps([digests(), digests()]))  # noqa: T201 - this is the program's output


if __name__ == "__main__":
    main()
