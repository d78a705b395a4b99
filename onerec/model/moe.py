"""Sparse mixture of experts, the decoder's FFN (paper, section 3.2), balanced without an auxiliary loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SparseMoE(nn.Module):
    """y_t = sum_i g_it FFN_i(x_t): softmax over all experts, then the top k; gates are not renormalised.

    `bias` moves the selection only, never the gates (loss-free balancing, arXiv 2408.15664); `update_bias` is
    called after each optimizer step. Rows are sorted by expert and multiplied in contiguous slices; none is
    dropped. `load` int64 [experts] counts the rows that each expert got in the last forward.
    """

    bias: Tensor
    load: Tensor

    def __init__(self, d_model: int, hidden: int, experts: int, active: int) -> None:
        super().__init__()
        self.experts, self.active = experts, active
        self.centroids = nn.Parameter(torch.empty(experts, d_model))  # e_i of the paper's gate
        self.w_in = nn.Parameter(torch.empty(experts, d_model, 2 * hidden))  # gate and value of SwiGLU
        self.w_out = nn.Parameter(torch.empty(experts, hidden, d_model))
        self.register_buffer("bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts, dtype=torch.int64), persistent=False)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates float32 [R, k] and experts int64 [R, k] of rows x [R, d]."""
        scores = torch.softmax(functional.linear(x, self.centroids).float(), dim=-1)
        chosen = torch.topk(scores.detach() + self.bias, self.active, dim=-1).indices
        return scores.gather(1, chosen), chosen

    def forward(self, x: Tensor) -> Tensor:
        """Rows x [R, d] -> [R, d], without the residual."""
        gates, chosen = self.route(x)
        flat = chosen.flatten()
        order = torch.argsort(flat, stable=True)
        self.load = torch.bincount(flat, minlength=self.experts)
        counts = self.load.tolist()
        rows = torch.split(x.index_select(0, order // self.active), counts)
        outputs = []
        for row, w_in, w_out in zip(rows, self.w_in.unbind(0), self.w_out.unbind(0), strict=True):
            gate, value = (row @ w_in).chunk(2, dim=-1)
            outputs.append((functional.silu(gate) * value) @ w_out)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        picked = torch.cat(outputs).index_select(0, inverse).view(*chosen.shape, -1)
        return (picked * gates.to(picked.dtype).unsqueeze(-1)).sum(1)

    @torch.no_grad()
    def update_bias(self, rate: float) -> None:
        """Raise the bias of under-loaded experts by `rate` and lower that of over-loaded ones."""
        load = self.load.to(self.bias.dtype)
        self.bias += rate * torch.sign(load.mean() - load)
