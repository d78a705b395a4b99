"""The decoder's weights as decoding wants them, made once a version from the module that was trained.

Each RMSNorm is `x / sqrt(|x|^2 / d + eps) * gain`. Its gain, and the constant sqrt(d), are folded into the weights
that follow, so what is left at run time is `x / hypot(|x|, sqrt(d * eps))`. Projections are transposed once
(`torch.mm(x, w)`), and queries carry the attention scale.
"""

from __future__ import annotations

from typing import NamedTuple, Self, cast

import torch
from torch import Tensor

from onerec.model.attention import SelfAttention
from onerec.model.blocks import DecoderBlock
from onerec.model.lazy import SharedAttention
from onerec.model.norm import EPSILON, RMSNorm
from onerec.model.onerec import OneRec

TABLE_BYTES = 1 << 25
"""The table of the first layer's projections may take so much memory: 4 MB for preset small, too much for base."""


class Experts(NamedTuple):
    """The sparse mixture of experts of a layer."""

    router: Tensor  # [E, d]
    bias: Tensor  # [E]
    w_in: Tensor  # [E, d, 2 * hidden]
    w_out: Tensor  # [E, hidden, d]
    active: int


class Layer(NamedTuple):
    """One decoder block."""

    self_qkv: Tensor  # [d, 3d], queries scaled
    self_out: Tensor  # [d, d]
    cross_q: Tensor  # [d, d], scaled
    cross_kv: Tensor | None  # [d, 2d], of memory; None where memory is keys and values already
    kv_columns: tuple[int, int]  # where keys and values begin in what `cross_kv` gives, or in memory
    cross_out: Tensor  # [d, d]
    experts: Experts


class Prepared(NamedTuple):
    """Everything the decoder multiplies with, on one device and in one precision.

    A lazy decoder (onerec.model.lazy) attends memory before the tokens of the session, and by fewer heads of keys.
    """

    memory_first: bool
    memory_width: int
    kv_heads: int
    layers: tuple[Layer, ...]
    heads: tuple[Tensor, ...]  # L times [d, K], float32 or the engine's precision
    embeddings: Tensor  # [1 + L * K, d]: BOS, then the codes of each level
    rows: Tensor  # int64 [m * (L + 1)]: row of `embeddings` at which the tokens of a place begin
    positions: Tensor  # [m * (L + 1), d]
    norm_floor: Tensor  # scalar sqrt(d * eps)
    codes: int  # K
    first_qkv: Tensor | None  # [m * (L + 1) * K, 3d], row place * K + code; None where too large, or lazy

    @classmethod
    def of(cls, model: OneRec, dtype: torch.dtype) -> Self:
        """Prepare `model`, whose own weights stay as they are."""
        width = model.config.d_model
        decoder_gain = gain(model.decoder.norm.weight)
        layers = tuple(_layer(block, dtype) for block in model.decoder.stack())
        floor = torch.tensor((width * EPSILON) ** 0.5, dtype=torch.float32, device=model.bos.device)
        lazy = model.config.decoder == "lazy"
        return cls(
            memory_first=lazy,
            memory_width=model.config.memory_width,
            kv_heads=model.config.kv_heads if lazy else model.config.heads,
            layers=layers,
            heads=tuple(folded(cast(Tensor, head.weight), decoder_gain).to(dtype) for head in model.heads),
            embeddings=torch.cat([model.bos.detach().unsqueeze(0), model.code_embedding.weight.detach()]).to(dtype),
            rows=first_rows(model),
            positions=model.decoder_position.detach().to(dtype, copy=True),
            norm_floor=floor,
            codes=model.config.codes,
            first_qkv=None if lazy else first_qkv(model, layers[0].self_qkv, floor, dtype),
        )


def tensors_of(prepared: Prepared) -> list[Tensor]:
    """All tensors of `prepared`, in one order."""
    found: list[Tensor] = []
    left: list[object] = list(prepared)
    while left:
        one = left.pop()
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, tuple):
            left.extend(one)
    return found


def first_rows(model: OneRec) -> Tensor:
    """For each place of a session int64 [m * (L + 1)], the row of BOS and codes at which its tokens begin."""
    config = model.config
    levels = torch.arange(config.levels, device=model.bos.device)
    return torch.cat([levels.new_zeros(1), 1 + levels * config.codes]).repeat(config.session_items)


def first_qkv(model: OneRec, projection: Tensor, floor: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The first layer's queries, keys and values of every token at every place: they depend on nothing else.

    `projection` [d, 3d] has the gain of the norm and the scale folded in, in the precision of the product; the table
    is in `dtype`. None where it would be too large.
    """
    config = model.config
    rows = config.session_tokens * config.codes
    if rows * 3 * config.d_model * dtype.itemsize > TABLE_BYTES:
        return None
    codes = model.code_embedding.weight.detach().view(config.levels, config.codes, -1)
    bos = model.bos.detach().expand(1, config.codes, -1)
    tokens = torch.cat([bos, codes]).repeat(config.session_items, 1, 1)  # [m * (L + 1), K, d]
    inputs = (tokens + model.decoder_position.detach().unsqueeze(1)).to(projection.dtype).view(rows, -1)
    return torch.mm(normalise(inputs, floor), projection).to(dtype)


def normalise(x: Tensor, floor: Tensor) -> Tensor:
    """Rows of x [R, d] at unit length (see the module's docstring for what RMSNorm has besides)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return x / torch.hypot(length, floor).to(x.dtype)


def gain(weight: Tensor) -> Tensor:
    """Gain [d] of an RMSNorm, times sqrt(d)."""
    scaled: Tensor = weight.detach().float() * weight.shape[0] ** 0.5
    return scaled


def folded(weight: Tensor, before: Tensor | None = None) -> Tensor:
    """nn.Linear's weight [out, in] -> contiguous [in, out] with the gain [in] of the norm before it."""
    transposed = weight.detach().float().t()
    scaled = transposed if before is None else transposed * before.unsqueeze(1)
    return scaled.contiguous()


class Attention(NamedTuple):
    """Projections of a self-attention."""

    qkv: Tensor  # [d, 3d], queries scaled
    out: Tensor  # [d, d]


def attention_weights(attention: SelfAttention, norm: RMSNorm) -> Attention:
    """The projections in float32, with the gain of the norm before and the attention scale."""
    width = attention.out.weight.shape[0]
    qkv = folded(attention.qkv.weight, gain(norm.weight))
    qkv[:, :width] *= (width // attention.heads) ** -0.5
    return Attention(qkv, folded(attention.out.weight))


def _layer(block: DecoderBlock, dtype: torch.dtype) -> Layer:
    attention = attention_weights(block.self_attention, block.self_norm)
    width = attention.out.shape[0]
    scale = (width // block.self_attention.heads) ** -0.5
    cross = block.cross_attention
    query = folded(cross.q.weight, gain(block.cross_norm.weight)) * scale
    if isinstance(cross, SharedAttention):
        projection, kv_columns = None, cross.columns
    else:
        projection, kv_columns = folded(cross.kv.weight).to(dtype), (0, width)
    moe, moe_gain = block.moe, gain(block.moe_norm.weight)
    w_in = (moe.w_in.detach().float() * moe_gain[None, :, None]).to(dtype)
    experts = Experts(
        router=(moe.centroids.detach().float() * moe_gain).to(dtype),
        bias=moe.bias.detach().to(torch.float32, copy=True),
        w_in=w_in,
        w_out=moe.w_out.detach().to(dtype, copy=True),
        active=moe.active,
    )
    return Layer(
        self_qkv=attention.qkv.to(dtype),
        self_out=attention.out.to(dtype),
        cross_q=query.to(dtype),
        cross_kv=projection,
        kv_columns=kv_columns,
        cross_out=folded(cross.out.weight).to(dtype),
        experts=experts,
    )
