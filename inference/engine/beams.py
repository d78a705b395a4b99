"""The beams of a batch of requests: where each stands in the trie, what it holds and what it is worth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from inference.engine.constraints import Constraints
from inference.engine.generated import Generated
from inference.engine.index import CatalogueIndex
from inference.engine.selection import Selection

OFTEN_OPEN = 4.0
"""Children of a node, on average: above it few rows are decided, and looking for them costs more than it saves."""


class Reached(NamedTuple):
    """Where the beams of a step go."""

    parents: Tensor  # int64 [R']: the rows that they continue
    codes: Tensor  # int64 [R']
    nodes: Tensor  # int64 [R']: of the next level; leaves after the last
    scores: Tensor  # float32 [B, W']


class Beams:
    """Rows are beams, request by request; all requests have the same number of beams, some perhaps worth -inf.

    Those are dead: they have no items and no children that are worth more, and a decoder may leave them out.
    """

    def __init__(
        self,
        requests: int,
        index: CatalogueIndex,
        constraints: Constraints,
        selection: Selection,
        *,
        slots: int,
        often_open: float = OFTEN_OPEN,
    ) -> None:
        device = index.trie.device
        self._requests, self._index, self._selection = requests, index, selection
        self._constraints = constraints
        self._scores = torch.zeros(requests, 1, device=device)  # [B, W]
        self._nodes = torch.zeros(requests, dtype=torch.int64, device=device)  # [R]
        self._held = torch.empty(requests, 0, dtype=torch.int64, device=device)  # [R, k] leaves
        self._totals = torch.empty(requests, 0, device=device)  # [R, k] scores after each item held
        self._slots = slots
        self._often_open = often_open
        self._dying: bool | None = False  # whether any is dead; None where that has not been looked at
        self._request = torch.arange(requests, device=device).unsqueeze(1)  # [B, 1]
        self._first: tuple[Tensor, Tensor] | None = None
        # A request with fewer allowed items than slots is done after as many; None where no request is.
        supply = constraints.supply.expand(requests)
        short = len(index.trie) < slots or (constraints.individual and bool((supply < slots).any()))
        self._supply = supply if short else None
        self._ended: list[tuple[Tensor, Generated]] = []

    def live(self) -> Tensor | None:
        """Rows int64 that are not dead, ascending; None where all live."""
        if self._dying is None:
            self._dying = bool((self._scores == -torch.inf).any())
        return (self._scores > -torch.inf).view(-1).nonzero().squeeze(1) if self._dying else None

    def undecided(self, level: int) -> Tensor | None:
        """Live rows int64 whose next code the trie leaves open, ascending; None where that is so for all.

        A code without siblings has probability 1 whatever the logits are.
        """
        if level == 0 or self._index.trie.mean_branch(level) > self._often_open:
            return self.live()
        open_rows = (self._index.trie.child_counts(level, self._nodes) > 1) & (self._scores > -torch.inf).view(-1)
        return None if bool(open_rows.all()) else open_rows.nonzero().squeeze(1)

    def step(self, level: int, logits: Tensor, width: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One code for each beam from logits [R, K]: (parent rows int64 [R'], codes int64 [R']).

        `width` beams are kept, or of each request its `own` int64 [B], none of which is above `width`.
        """
        parents, codes, self._nodes, self._scores = self._reached(level, logits, width, own)
        self._dying = None
        self._held, self._totals = self._held.index_select(0, parents), self._totals.index_select(0, parents)
        return parents, codes

    def _reached(self, level: int, logits: Tensor, width: int, own: Tensor | None) -> Reached:
        codes, children, log_probs = self._continuations(level, logits)
        if self._constraints.binds(level, self._held.shape[1]):
            closed = self._constraints.closed(level, children, self._nodes, self._held, self._requests)
            log_probs = log_probs.masked_fill(closed, -torch.inf)
        branch = log_probs.shape[1]
        chosen = self._selection.choose(self._scores, log_probs.view(self._requests, -1, branch), width)
        scores = chosen.scores if own is None else _within(chosen.scores, own)
        parents = (chosen.parents + self._request * self._scores.shape[1]).view(-1)
        ranks = chosen.ranks.view(-1)
        if level == 0:
            codes, nodes = codes[0][ranks], ranks
        else:
            place = parents * branch + ranks
            codes, nodes = codes.view(-1)[place], children.view(-1)[place]
        if level == self._index.trie.levels - 1:
            nodes = self._index.trie.leaves_in_order(nodes)
        return Reached(parents, codes, nodes, scores)

    def _continuations(self, level: int, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes and nodes of all children, and their log-probabilities [R, C] among themselves."""
        if level == 0:
            codes = self._index.root_codes
            own = logits if len(codes) == logits.shape[1] else logits.index_select(1, codes)
            nodes = torch.arange(len(codes), device=codes.device)
            return codes.unsqueeze(0), nodes.unsqueeze(0), torch.log_softmax(own, dim=-1)
        children = self._index.trie.children(level, self._nodes)
        legal = logits.gather(1, children.codes).masked_fill_(~children.legal, -torch.inf)
        return children.codes, children.nodes, torch.log_softmax(legal, dim=-1)

    def finish_slot(self, slot: int) -> None:
        """The nodes reached are leaves: hold them, and start again at the root."""
        self._held = torch.cat([self._held, self._nodes.unsqueeze(1)], dim=1)
        self._totals = torch.cat([self._totals, self._scores.view(-1, 1)], dim=1)
        if self._first is None:
            self._first = self._sorted_first()
        if self._supply is not None:
            done = self._supply == slot + 1
            if bool(done.any()):
                self._ended.append((done, self._as_generated()))
        self._nodes = torch.zeros_like(self._nodes)

    def narrow(self, width: int, own: Tensor | None = None) -> Tensor | None:
        """Keep the best `width` beams, or each request's `own`: rows int64 [R'] that were kept, None for all."""
        beams = self._scores.shape[1]
        if own is not None:
            self._scores, self._dying = _within(self._scores, own), None
        if width >= beams:
            return None
        best = torch.topk(self._scores, width, dim=1, sorted=False)
        kept = (best.indices + self._request * beams).view(-1)
        self._dying = None
        self._scores = best.values
        self._nodes, self._held, self._totals = self._nodes[kept], self._held[kept], self._totals[kept]
        return kept

    def generated(self) -> Generated:
        """Best first; requests that ran out of allowed items as they were when they did."""
        result = self._as_generated()
        if self._supply is None:
            return result
        return self._with_ended(result)

    def _sorted_first(self) -> tuple[Tensor, Tensor]:
        scores, order = self._scores.sort(dim=1, descending=True)
        leaves = self._nodes.view(self._requests, -1).gather(1, order)
        return leaves.masked_fill(scores == -torch.inf, -1), scores

    def _as_generated(self) -> Generated:
        """What the beams hold now, padded to all slots with leaf -1 and log-probability 0."""
        assert self._first is not None
        scores, order = self._scores.sort(dim=1, descending=True)
        rows = order + self._request * order.shape[1]
        held, totals = self._held[rows], self._totals[rows]  # [B, W, k]
        steps = totals.diff(dim=-1, prepend=torch.zeros_like(totals[..., :1]))
        missing = (scores == -torch.inf).unsqueeze(-1)
        rest = self._slots - held.shape[-1]
        held = torch.nn.functional.pad(held.masked_fill(missing, -1), (0, rest), value=-1)
        steps = torch.nn.functional.pad(steps.masked_fill(missing, 0.0), (0, rest))
        return Generated(held, scores, steps, *self._first)

    def _with_ended(self, result: Generated) -> Generated:
        assert self._supply is not None
        sessions, log_probs, steps = result.sessions.clone(), result.log_probs.clone(), result.item_log_probs.clone()
        width = log_probs.shape[1]
        for done, ended in self._ended:
            have = min(width, ended.log_probs.shape[1])
            sessions[done], log_probs[done], steps[done] = -1, -torch.inf, 0.0
            sessions[done, :have] = ended.sessions[done, :have]
            log_probs[done, :have] = ended.log_probs[done, :have]
            steps[done, :have] = ended.item_log_probs[done, :have]
        return result._replace(sessions=sessions, log_probs=log_probs, item_log_probs=steps)


def _within(scores: Tensor, widths: Tensor) -> Tensor:
    """Scores [B, W] with -inf beyond the best `widths` [B] of each request."""
    place = scores.argsort(dim=1, descending=True).argsort(dim=1)
    return scores.masked_fill(place >= widths.unsqueeze(1), -torch.inf)
