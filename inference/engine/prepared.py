"""The decoder's weights as decoding wants them, made once a version from the module that was trained.

Each RMSNorm is `x / sqrt(|x|^2 / d + eps) * gain`. Its gain, and the constant sqrt(d), are folded into the weights
that follow, so what is left at run time is `x / hypot(|x|, sqrt(d * eps))`. Projections are transposed once
(`torch.mm(x, w)`), and queries carry the attention scale.
"""

from __future__ import annotations

from typing import NamedTuple, Self, cast

import torch
from torch import Tensor

from onerec.model.onerec import DecoderBlock, OneRec

NORM_EPSILON = torch.finfo(torch.float32).eps
"""What nn.RMSNorm adds with eps=None: the machine epsilon of the precision in which it was trained."""


class Experts(NamedTuple):
    """The sparse mixture of experts of a layer."""

    router: Tensor  # [d, E]
    bias: Tensor  # [E]
    w_in: tuple[Tensor, ...]  # E times [d, 2 * hidden]
    w_out: tuple[Tensor, ...]  # E times [hidden, d]
    active: int


class Layer(NamedTuple):
    """One decoder block."""

    self_qkv: Tensor  # [d, 3d], queries scaled
    self_out: Tensor  # [d, d]
    cross_q: Tensor  # [d, d], scaled
    cross_kv: Tensor  # [d, 2d], of memory
    cross_out: Tensor  # [d, d]
    experts: Experts


class Prepared(NamedTuple):
    """Everything the decoder multiplies with, on one device and in one precision."""

    layers: tuple[Layer, ...]
    heads: tuple[Tensor, ...]  # L times [d, K], float32 or the engine's precision
    embeddings: Tensor  # [L * K, d], row l * K + code
    bos: Tensor  # [d]
    positions: Tensor  # [m * (L + 1), d]
    norm_floor: Tensor  # scalar sqrt(d * eps)

    @classmethod
    def of(cls, model: OneRec, dtype: torch.dtype) -> Self:
        """Prepare `model`, whose own weights stay as they are."""
        width = model.config.d_model
        decoder_gain = _gain(model.decoder.norm.weight)
        return cls(
            layers=tuple(_layer(cast(DecoderBlock, block), dtype) for block in model.decoder.blocks),
            heads=tuple(_projection(cast(Tensor, head.weight), decoder_gain).to(dtype) for head in model.heads),
            embeddings=model.code_embedding.weight.detach().to(dtype),
            bos=model.bos.detach().to(dtype),
            positions=model.decoder_position.detach().to(dtype),
            norm_floor=torch.tensor((width * NORM_EPSILON) ** 0.5, dtype=torch.float32, device=model.bos.device),
        )


def normalise(x: Tensor, floor: Tensor) -> Tensor:
    """Rows of x [R, d] at unit length (see the module's docstring for what RMSNorm has besides)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return x / torch.hypot(length, floor).to(x.dtype)


def _gain(weight: Tensor) -> Tensor:
    """Gain [d] of an RMSNorm, times sqrt(d)."""
    gain: Tensor = weight.detach().float() * weight.shape[0] ** 0.5
    return gain


def _projection(weight: Tensor, gain: Tensor | None = None) -> Tensor:
    """nn.Linear's weight [out, in] -> contiguous [in, out] with the gain [in] of the norm before it."""
    transposed = weight.detach().float().t()
    scaled = transposed if gain is None else transposed * gain.unsqueeze(1)
    return scaled.contiguous()


def _layer(block: DecoderBlock, dtype: torch.dtype) -> Layer:
    width = block.self_attention.out.weight.shape[0]
    scale = (width // block.self_attention.heads) ** -0.5
    qkv = _projection(block.self_attention.qkv.weight, _gain(block.self_norm.weight))
    qkv[:, :width] *= scale
    query = _projection(block.cross_attention.q.weight, _gain(block.cross_norm.weight)) * scale
    moe, gain = block.moe, _gain(block.moe_norm.weight)
    w_in = (moe.w_in.detach().float() * gain[None, :, None]).to(dtype)
    experts = Experts(
        router=_projection(moe.centroids, gain).to(dtype),
        bias=moe.bias.detach().float(),
        w_in=w_in.unbind(0),
        w_out=moe.w_out.detach().to(dtype).clone().unbind(0),
        active=moe.active,
    )
    return Layer(
        self_qkv=qkv.to(dtype),
        self_out=_projection(block.self_attention.out.weight).to(dtype),
        cross_q=query.to(dtype),
        cross_kv=_projection(block.cross_attention.kv.weight).to(dtype),
        cross_out=_projection(block.cross_attention.out.weight).to(dtype),
        experts=experts,
    )
