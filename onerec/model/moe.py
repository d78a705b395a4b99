"""Sparse mixture of experts, the decoder's FFN (paper, section 3.2), balanced without an auxiliary loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onerec.model import experts
from onerec.model.precision import widen


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
        """Gates float32 [R, k] and experts int64 [R, k] of rows x [R, d], best first."""
        # Experts lie on the first dimension: a softmax over rows of a few numbers is twenty times slower.
        scores = torch.softmax(torch.matmul(widen(self.centroids), widen(x).t()), dim=0)  # [E, R]
        chosen = torch.topk(scores.detach() + self.bias.to(scores.dtype).unsqueeze(1), self.active, dim=0).indices
        return scores.gather(0, chosen).t(), chosen.t()

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Rows x [R, d] -> [R, d] without the residual; float32 where the parameters are.

        `counted` bool [R] are the rows that enter `load`, all for None.
        """
        gates, chosen = self.route(x)
        mixed, self.load = experts.mix(x, gates, chosen, self.w_in, self.w_out)
        if counted is not None:
            routed = chosen.unsqueeze(-1) == torch.arange(self.experts, device=x.device)  # [R, k, E]
            self.load = (routed & counted[:, None, None]).sum((0, 1))
        return mixed

    @torch.no_grad()
    def update_bias(self, rate: float) -> None:
        """Raise the bias of under-loaded experts by `rate` and lower that of over-loaded ones."""
        load = self.load.to(self.bias.dtype)
        self.bias += rate * torch.sign(load.mean() - load)
