"""Moving and multiplying rows by group, so that forward and backward give the same bits on every run.

The backward of an ordinary gather adds rows at their index. With the places of the copies known it is a gather
again: faster, and without an order of addition to depend on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _Spread(torch.autograd.Function):
    """x[source], where row r of x stands at places[r]; other rows of the result are never read."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        copies = grads[0].index_select(0, places.flatten()).view(*places.shape, grads[0].shape[1])
        grad = copies[:, 0]
        for copy in range(1, places.shape[1]):  # a sum over so short a dimension is not vectorised
            grad = grad + copies[:, copy]
        return grad, None, None


class _Collect(torch.autograd.Function):
    """x[places]; every row is read at most once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = x.shape[0]
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        grad = grads[0]
        return grad.new_zeros(ctx.rows, grad.shape[1]).index_copy_(0, places, grad), None


def spread_rows(x: Tensor, source: Tensor, places: Tensor) -> Tensor:
    """Rows x [R, d] -> x[source] [P, d]; `places` int64 [R, k] says where the k copies of each row stand in it."""
    out: Tensor = _Spread.apply(x, source, places)  # type: ignore[no-untyped-call]
    return out


def collect_rows(x: Tensor, places: Tensor) -> Tensor:
    """Rows x [P, d] -> x[places] [len(places), d], `places` int64 without repetition."""
    out: Tensor = _Collect.apply(x, places)  # type: ignore[no-untyped-call]
    return out


class _GroupedProduct(torch.autograd.Function):
    """Group g of the rows times w[g]; every product is written into its slice of one result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        return _products(x, weight, counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad_x = _products(grads[0], weight.transpose(1, 2), ctx.counts)
        grad_weight = torch.empty_like(weight)
        slices = zip(torch.split(x, ctx.counts), torch.split(grads[0], ctx.counts), grad_weight, strict=True)
        for rows, grad, out in slices:
            torch.mm(rows.t(), grad, out=out)  # no rows give zeros
        return grad_x, grad_weight, None


def _products(x: Tensor, weight: Tensor, counts: list[int]) -> Tensor:
    out = x.new_empty(x.shape[0], weight.shape[2])
    slices = zip(torch.split(x, counts), weight, torch.split(out, counts), counts, strict=True)
    for rows, matrix, target, count in slices:
        if count:
            torch.mm(rows, matrix, out=target)
    return out


def on_device(rows: Tensor, dtype: torch.dtype) -> bool:
    """Whether groups of rows that lie with `rows` are told as a tensor: CUDA multiplies them in one go in bfloat16."""
    return rows.is_cuda and dtype == torch.bfloat16


def grouped_product(x: Tensor, weight: Tensor, groups: list[int] | Tensor) -> Tensor:
    """Rows x [R, d] sorted by group, weight [G, d, h] -> [R, h]. Contiguous matrix products.

    `groups` are the rows of each, or, where `on_device` says so, int32 [G]: after which row each ends. There may be
    more rows then, whose results and gradients are undefined.
    """
    if isinstance(groups, Tensor):
        return functional.grouped_mm(x, weight, offs=groups)
    if torch.is_grad_enabled():
        out: Tensor = _GroupedProduct.apply(x, weight, groups)  # type: ignore[no-untyped-call]
        return out
    return _products(x, weight, groups)
