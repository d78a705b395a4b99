"""The three losses of a step: next token on sessions, preference on pairs, reward model on labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onerec.model import policy, preference
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import ntp_loss, token_log_probs
from onerec.model.onerec import Memory, OneRec
from onerec.model.reward import RewardModel, Rewards, duration_feature, reward_loss, watch_target
from onerec.model.trie import Trie
from onerec.settings import TrainerSettings
from schemas.labels import Label
from trainer.batches import PairBatch, SessionBatch


def next_token_loss(model: OneRec, batch: SessionBatch, trie: Trie) -> Tensor | None:
    """Mean negative log-probability per token of the covered exposures (paper, equation 4); None without any.

    Only sessions that have a covered exposure are computed, and only up to the last such slot of the batch:
    slots attend to earlier ones alone. Exposures that are not covered stay in the decoder's input.
    """
    covered = batch.weight > 0
    rows = torch.nonzero(covered.any(1)).squeeze(1)
    if not len(rows):
        return None
    slots = int(torch.nonzero(covered.any(0)).max()) + 1
    memory = model.encode(select(batch.history, rows))
    log_probs = token_log_probs(model, memory, batch.leaves[rows, :slots], trie, covered[rows, :slots])
    return ntp_loss(log_probs, batch.weight[rows, :slots])


def preference_loss(
    model: OneRec, pairs: PairBatch, trie: Trie, settings: TrainerSettings
) -> tuple[Tensor, dict[str, float]]:
    """Mean loss over the pairs on summed log-probabilities, and figures of them.

    The reference is the version that made the pair, by the log-probabilities stored with it. Dropout is off: the
    reference was scored without it, and noise in the policy's log-probabilities would pass for a preference.
    """
    training = model.training
    model.eval()
    try:
        chosen, rejected = _summed_log_probs(model, pairs, trie)
    finally:
        model.train(training)
    losses = _pair_losses(chosen, rejected, pairs, settings, trie.levels)
    margin = preference.margin(chosen, rejected, pairs.ref_chosen, pairs.ref_rejected).detach()
    figures = {
        "preference_margin": float(margin.mean()),
        "preference_accuracy": float((margin > 0).float().mean()),
        "chosen_log_prob_change": float((chosen.detach() - pairs.ref_chosen).mean()),
    }
    return losses.mean(), figures


def _summed_log_probs(model: OneRec, pairs: PairBatch, trie: Trie) -> tuple[Tensor, Tensor]:
    """Log-probabilities [P] of chosen and rejected; the histories are encoded once."""
    memory = model.encode(pairs.history)
    both = Memory(memory.states.repeat(2, 1, 1), memory.mask.repeat(2, 1))
    log_probs = token_log_probs(model, both, torch.cat([pairs.chosen, pairs.rejected]), trie)
    chosen, rejected = log_probs.sum((1, 2)).chunk(2)
    return chosen, rejected


def _pair_losses(chosen: Tensor, rejected: Tensor, pairs: PairBatch, settings: TrainerSettings, levels: int) -> Tensor:
    beta = settings.preference_beta
    tokens = pairs.chosen.shape[1] * levels
    match settings.preference_loss:
        case "dpo" | "ipo" | "cdpo" | "rdpo" as name:
            losses: Tensor = getattr(preference, name)(
                chosen, rejected, pairs.ref_chosen, pairs.ref_rejected, beta=beta
            )
        case "sdpo":
            losses = preference.sdpo(
                chosen, rejected[:, None], pairs.ref_chosen, pairs.ref_rejected[:, None], beta=beta
            )
        case "cpo":
            losses = preference.cpo(chosen, rejected, tokens=tokens, beta=beta)
        case "simpo":
            losses = preference.simpo(chosen, rejected, tokens=tokens, beta=beta)
        case "ecpo" | "gbpo" as name:  # the two ends of the sampler's group
            loss, best = getattr(policy, name), torch.ones_like(chosen)
            losses = loss(chosen, pairs.ref_chosen, best) + loss(rejected, pairs.ref_rejected, -best)
        case name:
            raise ValueError(f"trainer.preference_loss {name!r} is unknown")
    return losses


def session_reward_loss(model: RewardModel, batch: SessionBatch) -> Tensor:
    """L_RM of the sessions' labels (paper, section 3.3.1)."""
    return reward_loss(_rewards(model, batch), reward_targets(batch))


def history_reward_loss(model: RewardModel, batch: SessionBatch) -> Tensor:
    """L_RM without watch time and follows, which histories from before the log do not tell."""
    logits, targets = _rewards(model, batch), reward_targets(batch)
    known = [(logits.vtr, targets.vtr), (logits.ltr, targets.ltr)]
    return torch.stack([functional.binary_cross_entropy_with_logits(x, y) for x, y in known]).sum()


def reward_targets(batch: SessionBatch) -> Rewards:
    """Targets [B] in [0, 1]: watch time, share of long views, any follow, any like."""
    items = batch.mask.sum(1).clamp(min=1)
    return Rewards(
        swt=watch_target(batch.watch_ms),
        vtr=_marked(batch, Label.LONG_VIEW).sum(1) / items,
        wtr=_marked(batch, Label.FOLLOW).any(1).float(),
        ltr=_marked(batch, Label.LIKE).any(1).float(),
    )


def select(history: HistoryBatch, rows: Tensor) -> HistoryBatch:
    """Some rows of a batch of histories."""
    return HistoryBatch(history.codes[rows], history.labels[rows], history.mask[rows])


def _marked(batch: SessionBatch, label: Label) -> Tensor:
    return (batch.labels & int(label)) != 0


def _rewards(model: RewardModel, batch: SessionBatch) -> Rewards:
    rewards: Rewards = model(batch.history, batch.codes, duration_feature(batch.durations_ms), batch.mask)
    return rewards
