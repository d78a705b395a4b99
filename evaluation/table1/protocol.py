"""The protocol of Table 1, in full. One for all rows.

**Data.** The part of KuaiRand-Pure in data/kuairand-pure: up to 50 exposures of each user from before 25 April 2022
(long views and likes, no times) and every exposure of 25 April to 4 May (times, watch time, likes, follows).

**Splits.** By time at 1 May 2022, 00:00 UTC, and by user, by a hash of the user's id, six to four:

| | rows' users (6 of 10) | judge's users (4 of 10) |
|---|---|---|
| before 1 May | train every row, and the reward model that makes preference pairs | train the judge |
| from 1 May on | evaluated | measure how good the judge is |

So no row and no training reward model has seen a user of the judge, and no model has seen the evaluated period. Item
embeddings and semantic ids are made twice: for the rows from the rows' users' histories, for the judge from the
judge's, so that the two share only what is known of the videos themselves (author, tag, music, length).

**Cases.** Rows' users with three exposures or more before 1 May and one or more from then on; `cases` of them, drawn
once by a fixed seed, the same for all rows and seeds. A row is given the user's exposures before 1 May.

**Sessions.** A row recommends `candidates` sessions of m = 5 items, none of them seen by the user before. OneRec gives
the sessions of its beam search. An item-wise row (SASRec, BERT4Rec, FDSA, CRM, the counts, and TIGER, which decodes
one item at a time by beam search) scores items; a session's score is the sum of its items' log-probabilities, and
its candidates are the sessions of the highest scores, best first: the first is the top m. That is what beam search
would find if the items of a session were independent.

**Cascade.** The rows `cascade-crm` and `cascade-sasrec` are what OneRec replaces: retrieval of 50 unseen items by CRM
(two towers, asked for 18 s) or by SASRec with full softmax, pre-ranking to 20 by a two-tower model, ranking of these
by an MMoE with attention over the user's exposures, and sessions of m = 5 of the 20 as for the other item-wise rows.
Pre-ranker and ranker learn swt, vtr, wtr and ltr of single exposures from the rows' users before 1 May; an item's score
is the same merge of the four, standardised over the user's items, that makes preference pairs of sessions.

**Columns.** swt, vtr, wtr, ltr are the judge's predictions for a session: watch time as 1 - exp(-t / 104 s), share of
long views, probability of a follow, of a like. The judge learns sessions and, beside them, each exposure of a session
alone: from whole sessions it would tell users apart and hardly the items of one user. mean is over a user's candidates,
max the greatest of them; both are then averaged over cases. Recall@10 and NDCG@10 need no judge: the ten best items
(for OneRec the most probable first items of a session) against what the user watched long or liked among the next m
exposures from 1 May on, without videos the user had seen before, over the cases that have any.

**By visit.** The same accuracy by prequential replay: each visit of the cases' users from 1 May on (exposures with no
gap of 30 minutes) is ranked for with all that the user had been exposed to before it, those of the evaluated period
too, and compared with what the user watched long or liked in it and had not seen before; visits without any do not
count. Models and counts stay as they are: what learning from the stream adds is a study of its own (`python -m
evaluation streaming`).

**Seeds.** Each row is trained with each seed; the table gives mean and standard deviation over seeds. The judge is one
and the same, trained with a seed of its own and kept with the ids that it knows: on another processor they would be
fitted a little otherwise.

**Generative rows.** OneRec and TIGER train by the seed recipe of the trainer, newer sessions more often. How many
samples, dropout, the half-lives of a session's weight, overlap of samples, rate and weight decay were chosen on a
development period, which ends where the evaluated one begins: models of one seed trained on the rows' users before
28 April, Recall@10 of what these users took to from 28 to 30 April (`python -m evaluation table1 --choose`; what was
compared stands below). Taken is the best for the larger size, for OneRec and for TIGER alike, and for both sizes.
OneRec: 200,000 sessions that begin at every item, TIGER: 400,000 items; both with dropout .1 and half-lives that fall
from 4 sessions to 1.

**Other rows.** How many passes they make over the exposures, and how many items leave a cascade's stages, was chosen
on the same period (`--choose-baselines`, below); their rate and sizes were not tuned. CRM's transformer variant takes
what is best for CRM. A cascade's Recall rises with every narrowing, since its rankers learn what users did with what
they were shown and not what they would be shown; 50 and 20 still leave the rankers a choice.

**Ids.** All generative rows have ids of balanced K-means, 3 codes of 128, but `tiger-rqvae-s`: the smaller TIGER with
ids as TIGER has them, 3 codes of 256 by an RQ-VAE of the same embeddings and a fourth that tells apart what shares
them.

**Lazy decoder.** `onerec-l-lazy` is the larger OneRec as OneRec-V2 has it: no encoder, its layers in the decoder, and
one set of keys and values of the history that all of them share. Depth and training are those of `onerec-l`; its
experts are spread over the layers, so that parameters are about the same.

**Preference rows.** They start from OneRec in the larger size with the same seed and go on for the same number of steps
at a constant rate, each with next-token loss on sessions and lambda times its preference loss on pairs: best and worst
of a user's candidates (`preference_candidates` by beam search) by the training reward model. Lambda is chosen for each
loss so that all pull equally hard at the start, as DPO's with lambda .05; `onerec-l-dpo-strong` pulls four times as
hard. All but IPA mine their pairs once. IPA mines them anew in every round with the model as it then is, which is also
the next round's reference. ECPO and GBPO, which follow IPA in the technical report and in OneRec-V2, learn from all of
a user's candidates by their advantages: the scalar reward, standardised among them. A format reward has no row:
training and decoding know only codes that lead to a video, so every session earns it and no session has an advantage by
it. The row `onerec-l-ntp` takes the same steps without pairs: what only going on does belongs to it and not to a
preference loss. Users of the cases make no pairs. A guard compares Recall@10 of each preference row with that row's
over the same seeds and marks it where it falls by more than 1 % relative. For IPA, and for that row after as many
steps, the reward of the cases and Recall@10 are also given by round, M_0 to M_T; the reward by the training reward
model and by the judge.

**Machines.** Rows of one table may come from a CPU and from a GPU. The steps are the same, with the same batches and
rates; on a GPU models train in fixed shapes, where what a batch does not have weighs nothing, and products of float32
matrices are in TF32, in training, decoding and judging alike; nothing is in bfloat16 there. On a CPU that multiplies
bfloat16 in hardware the larger generative models train with products in bfloat16, as a trainer's seed does there, and
sessions are decoded by the kernels that serve; baselines, reward models, judge, the mining of pairs and what preference
rows learn are in float32.

**What the paper does not disclose** and is decided here: case selection, the definition of max and of the spread,
sessions of item-wise rows, the watch-time target, the scalar reward (standardised objectives, weights 1, 1, .5, 1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLIT_MS = 1_651_363_200_000
"""1 May 2022, 00:00 UTC."""
ROWS_OF_TEN = 6
MIN_HISTORY = 3
TOP = 10
SESSION_ITEMS = 5
HISTORY_ITEMS = 50
RETRIEVED, PRE_RANKED = 50, 20
"""Items that leave the first two stages of a cascade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativeTraining:
    """How a generative row trains; the rest is the trainer's seed recipe. Half-lives are in sessions of m items."""

    samples: int  # sessions of OneRec, items of TIGER
    dropout: float = 0.0
    half_life: float = 2.0
    final_half_life: float = 0.25
    stride: int | None = None  # items between the beginnings of samples; a sample's own length where it is None
    learning_rate: float = 2e-3
    final_share: float = 0.05  # of the learning rate, at the end
    weight_decay: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How much of everything: the full form, or less on a slice of the users: short (an hour a seed at most), quick."""

    name: str
    users: int | None  # of each side, None for all
    cases: int
    candidates: int
    epochs: int  # of sequence models
    own_epochs: tuple[tuple[str, int], ...]  # of those that train for another number
    onerec: GenerativeTraining
    tiger: GenerativeTraining
    judge_samples: int  # history sessions that the judge learns before those of the log
    reward_samples: int  # the same of the training reward model
    judge_epochs: int  # of both over sessions of the log
    preference_steps: int
    preference_users: int  # whose candidates make pairs
    preference_candidates: int  # of each of them; 128 in the paper
    rounds: int  # of IPA

    def epochs_of(self, model: str) -> int:
        """Of a sequence model, by its name."""
        return dict(self.own_epochs).get(model, self.epochs)

    def digest(self) -> str:
        """Changes with every figure of the form: results of different forms do not mix."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


RANKERS = (("pre-ranker", 2), ("ranker", 2))
"""They rate single exposures, and rate new ones worse with every further pass."""
FULL = Form(
    name="full",
    users=None,
    cases=4000,
    candidates=32,
    epochs=20,
    own_epochs=(("fdsa", 10), ("crm", 10), ("crm-transformer", 10), *RANKERS),
    onerec=GenerativeTraining(
        samples=200_000, dropout=0.1, half_life=4.0, final_half_life=1.0, stride=1, learning_rate=1e-3
    ),
    tiger=GenerativeTraining(samples=400_000, dropout=0.1, half_life=4.0, final_half_life=1.0),
    judge_samples=200_000,
    reward_samples=100_000,
    judge_epochs=3,
    preference_steps=150,
    preference_users=960,
    preference_candidates=128,
    rounds=3,
)
SHORT = Form(
    name="short",
    users=4000,
    cases=600,
    candidates=32,
    epochs=2,
    own_epochs=RANKERS,
    onerec=GenerativeTraining(samples=30_000),
    tiger=GenerativeTraining(samples=60_000),
    judge_samples=60_000,
    reward_samples=30_000,
    judge_epochs=2,
    preference_steps=50,
    preference_users=240,
    preference_candidates=32,
    rounds=3,
)
QUICK = Form(
    name="quick",
    users=1200,
    cases=200,
    candidates=16,
    epochs=3,
    own_epochs=RANKERS,
    onerec=GenerativeTraining(samples=4_000),
    tiger=GenerativeTraining(samples=8_000),
    judge_samples=20_000,
    reward_samples=4_000,
    judge_epochs=2,
    preference_steps=12,
    preference_users=48,
    preference_candidates=32,
    rounds=2,
)


def of_rows(user_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which users are the rows'; the others are the judge's."""
    mixed = user_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    chosen: NDArray[np.bool_] = (mixed >> np.uint64(40)) % np.uint64(10) < ROWS_OF_TEN
    return chosen


def reduced(form: Form) -> dict[str, list[Any]]:
    """What a form has less of than the full one: by field its own and the full form's."""
    own, full = dict(_figures(asdict(form))), dict(_figures(asdict(FULL)))
    return {name: [own[name], full[name]] for name in own if name != "name" and own[name] != full[name]}


def _figures(form: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those of the generative rows' training stand beside the others."""
    for name, value in form.items():
        if isinstance(value, dict):
            yield from ((f"{name}_{key}", figure) for key, figure in value.items())
        else:
            yield name, value


def described(form: Form) -> dict[str, Any]:
    """The protocol as the results state it."""
    return {
        "text": __doc__,
        "split": "2022-05-01T00:00:00Z",
        "rows_users_of_ten": ROWS_OF_TEN,
        "session_items": SESSION_ITEMS,
        "top": TOP,
        "cascade": [RETRIEVED, PRE_RANKED, SESSION_ITEMS],
        **asdict(form),
        "reduced_from_full": reduced(form),
    }
