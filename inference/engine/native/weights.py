"""A version's weights as the kernels want them: packed, gains of norms and the attention scale folded in."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from inference.engine.native import binding
from inference.engine.native.binding import Kernels
from inference.engine.prepared import attention_weights, first_qkv, first_rows, folded, gain
from onerec.model.attention import CrossAttention
from onerec.model.blocks import DecoderBlock, EncoderBlock
from onerec.model.norm import EPSILON
from onerec.model.onerec import Encoder, OneRec
from onerec.model.presets import ModelConfig

UNIT = 32
"""Widths and padded lengths are multiples of this (isa.h)."""
MAX_TOKENS = 64
"""Of a session: scores of one beam's past lie in a fixed array (attention.h)."""
HEAD_WIDTHS = (32, 64, 96, 128)


def fits(config: ModelConfig) -> bool:
    """Whether the kernels can do a model of these shapes."""
    return (
        config.decoder == "encoder-decoder"
        and config.d_model // config.heads in HEAD_WIDTHS
        and config.ffn_hidden % (UNIT // 2) == config.expert_hidden % (UNIT // 2) == 0
        and config.session_tokens <= MAX_TOKENS
    )


class Head(NamedTuple):
    """One level's head."""

    packed: Tensor
    columns: int
    """Whole panels: K rounded up."""


class NativeWeights:
    """Packed weights with the structures that point to them. Made once a version; never changes."""

    def __init__(self, model: OneRec, kernels: Kernels) -> None:
        """Pack a model on the CPU."""
        self.config = model.config
        self.kernels = kernels
        self._kept: list[object] = []
        """What the structures point to."""
        assert isinstance(model.encoder, Encoder)
        memory_gain = gain(model.encoder.norm.weight)
        encoder = [self._encoder_block(block) for block in model.encoder.stack()]
        decoder = [self._decoder_block(block, memory_gain) for block in model.decoder.stack()]
        decoder_gain = gain(model.decoder.norm.weight)
        self.heads = [self._head(cast(Tensor, head.weight), decoder_gain) for head in model.heads]
        embeddings = torch.cat([model.bos.detach().unsqueeze(0), model.code_embedding.weight.detach()])
        self.structure = binding.Model(
            width=self.config.d_model,
            heads=self.config.heads,
            experts=self.config.experts,
            active=self.config.active_experts,
            codes=self.config.codes,
            encoder_blocks=len(encoder),
            decoder_blocks=len(decoder),
            floor=(self.config.d_model * EPSILON) ** 0.5,
            encoder=self._keep((binding.Block * len(encoder))(*encoder)),
            decoder=self._keep((binding.Block * len(decoder))(*decoder)),
            embeddings=self._address(embeddings.to(self.kernels.kept)),
            positions=self._address(model.decoder_position.detach().to(self.kernels.kept)),
            first_rows=self._address(first_rows(model)),
            first_qkv=self._first_qkv(model),
        )

    def _encoder_block(self, block: EncoderBlock) -> binding.Block:
        attention = attention_weights(block.self_attention, block.self_norm)
        w_in = folded(block.ffn.w_in.weight, gain(block.ffn_norm.weight))
        return binding.Block(
            qkv=self._pack(attention.qkv),
            out=self._pack(attention.out),
            w_in=self._pack(self._gated(w_in)),
            w_out=self._pack(folded(block.ffn.w_out.weight)),
            hidden=w_in.shape[1] // 2,
        )

    def _decoder_block(self, block: DecoderBlock, memory_gain: Tensor) -> binding.Block:
        attention = attention_weights(block.self_attention, block.self_norm)
        scale = (self.config.d_model // self.config.heads) ** -0.5
        moe, moe_gain = block.moe, gain(block.moe_norm.weight)
        assert isinstance(block.cross_attention, CrossAttention)
        w_in = moe.w_in.detach().float() * moe_gain[None, :, None]
        single = self.config.experts == 1
        return binding.Block(
            qkv=self._pack(attention.qkv),
            out=self._pack(attention.out),
            cross_q=self._pack(folded(block.cross_attention.q.weight, gain(block.cross_norm.weight)) * scale),
            cross_kv=self._pack(folded(block.cross_attention.kv.weight, memory_gain)),
            cross_out=self._pack(folded(block.cross_attention.out.weight)),
            router=None if single else self._pack((moe.centroids.detach().float() * moe_gain).t()),
            w_in=self._pack(*(self._gated(expert) for expert in w_in)),
            w_out=self._pack(*moe.w_out.detach().float()),
            expert_bias=self._address(moe.bias.detach().to(torch.float32, copy=True)),
            hidden=self.config.expert_hidden,
        )

    def _first_qkv(self, model: OneRec) -> int | None:
        block = model.decoder.stack()[0]
        projection = attention_weights(block.self_attention, block.self_norm).qkv
        floor = torch.tensor((self.config.d_model * EPSILON) ** 0.5)
        table = first_qkv(model, projection, floor, self.kernels.kept)
        return None if table is None else self._address(table)

    def _head(self, weight: Tensor, decoder_gain: Tensor) -> Head:
        return Head(self._packed(folded(weight, decoder_gain)), whole_units(weight.shape[0]))

    def _packed(self, *matrices: Tensor) -> Tensor:
        """Float32 matrices [k, n] one after the other, packed."""
        k, n = matrices[0].shape
        packed = torch.empty(len(matrices), self.kernels.packed_elements(k, n), dtype=self.kernels.dtype)
        for matrix, to in zip(matrices, packed, strict=True):
            source = matrix.contiguous()
            self.kernels.pack(source.data_ptr(), k, n, to.data_ptr())
        return packed

    def _pack(self, *matrices: Tensor) -> int:
        return self._address(self._packed(*matrices))

    def _address(self, tensor: Tensor) -> int:
        kept = tensor.contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _keep(self, array: object) -> object:
        self._kept.append(array)
        return array

    def _gated(self, w_in: Tensor) -> Tensor:
        """[d, gates then values] -> [d, some gates, their values, the next gates, ...]."""
        width, both = w_in.shape
        together = self.kernels.gated
        return w_in.view(width, 2, both // 2 // together, together).transpose(1, 2).reshape(width, both)


def whole_units(size: int) -> int:
    """`size` rounded up to a multiple of `UNIT`."""
    return (size + UNIT - 1) // UNIT * UNIT
