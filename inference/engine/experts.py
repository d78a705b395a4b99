"""The sparse mixture of experts for the rows of one decode pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.engine.prepared import Experts


def route(experts: Experts, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gates float32 [R, k] and experts int64 [R, k] of normalised rows [R, d]: softmax over all, then the top k."""
    # Transposed, experts first: on CPU this product is four times as fast, and the softmax seven times, as with
    # a last dimension of 8.
    scores = torch.softmax(torch.mm(experts.router, rows.t()), dim=0, dtype=torch.float32).t()
    chosen = torch.topk(scores + experts.bias, experts.active, dim=-1, sorted=False).indices
    return scores.gather(1, chosen), chosen


def add_experts(experts: Experts, rows: Tensor, residual: Tensor) -> Tensor:
    """Residual [R, d] plus the mixture of normalised rows [R, d].

    Rows are sorted by expert and multiplied in contiguous slices. Measured for 32 to 512 rows of d=128: all experts
    on all rows costs two to four times as much, gathering each row's expert weights eight times.
    """
    gates, chosen = route(experts, rows)
    flat = chosen.flatten()
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=len(experts.w_in)).tolist()
    picked = rows.index_select(0, order // experts.active)
    wide = rows.new_empty(len(order), experts.w_in[0].shape[1])
    for row, weight, out in zip(torch.split(picked, counts), experts.w_in, torch.split(wide, counts), strict=True):
        if len(row):
            torch.mm(row, weight, out=out)
    gate, value = wide.chunk(2, dim=-1)
    hidden = functional.silu(gate).mul_(value)
    narrow = torch.empty_like(picked)
    for row, weight, out in zip(torch.split(hidden, counts), experts.w_out, torch.split(narrow, counts), strict=True):
        if len(row):
            torch.mm(row, weight, out=out)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    mixed = functional.embedding_bag(
        place.view_as(chosen), narrow, per_sample_weights=gates.to(narrow.dtype), mode="sum"
    )
    return mixed.add_(residual)
