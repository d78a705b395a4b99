"""The protocol of the Beauty table, in full. One for all rows.

**Data.** Amazon Beauty 2014 5-core as S3-Rec, P5 and TIGER have it: 22,363 users, 12,101 items, 198,502 reviews. The
data are not passed on with this; the command takes the folder (--data, or the variable AMAZON_BEAUTY).

**Split.** Leave one out: a user's last item is the test item, the last but one the validation item, all before them is
trained on. When the test item is predicted the validation item is known as part of the history, but nothing is
learned from it, neither by models nor by counts.

**Ranking.** Against all 12,101 items, without sampled negatives. Nobody reviews an item twice in these data, so what a
user has reviewed is struck off the ranking, of every row alike; the same without that is given beside it, since
published figures differ in this and often do not say. One item is to be found: Recall@k is the share of users for
whom it is among the first k.

**Choices.** The epoch of a model, the figures of the co-occurrence count and the weights of mixtures are chosen by
Recall@10 of the validation item; recipes, too, were compared on it alone. The test item is looked at once, at the end.

**Rows.** `popularity` and `cooccurrence` are counts of training sequences. `sasrec-softmax` is an item-wise transformer
with softmax over all items. `tiger` has ids of item texts alone, three codes of 256 by residual balanced K-means
instead of an RQ-VAE (Table 1 has both), one token a code, and a dense decoder; its dropout was chosen for itself.
`onerec` is this project's model for one next item: ids of texts and co-occurrence, an item's codes summed to one token,
sparse experts. `onerec+backward` learns sequences backwards, too. Each of the next rows adds one thing to the one
before it:

- `onerec+items`: to `onerec`, item vectors in the encoder, and a second loss that brings the user's state near the next
  item's vector. What is recommended is still what is generated: the beam's items by their codes' probabilities.
- `onerec+taught`: half of the codes' loss is on items that the model's own item vectors find probable, instead of on
  the one item that followed. What is recommended is again what is generated.
- `onerec+views`: three such models, whose ids are of different embeddings; the items of their three beams, by the mean
  of the log-probabilities that the three generate them with.
- `onerec+rescored`: the same items by code probabilities and item vectors together.
- `onerec+counts`: co-occurrence as a prior joins them.

`onerec+items-rescored` and `onerec+taught-rescored` are beside those rows: one model alone, its beam by codes, item
vectors and counts. The last three rows are three models each; `parameters` and `train_minutes` are of all three.

**Machines.** On a CPU that has bfloat16 in hardware the generative rows train with products in bfloat16, on a GPU in
TF32; what is looked at, kept and tested ranks in float32. A row says where its models were trained.

**Seeds.** Each row is trained with each seed; the table gives mean and standard deviation over seeds. Ids are made
once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from evaluation.beauty.sequence import SequenceRecipe
from evaluation.beauty.training import Recipe
from onerec.model.presets import ModelConfig

HISTORY_ITEMS = 20
PUBLISHED = {
    "tiger": {"recall_at_5": 0.0454, "ndcg_at_5": 0.0321, "recall_at_10": 0.0648, "ndcg_at_10": 0.0384},
    "sasrec": {"recall_at_5": 0.0387, "ndcg_at_5": 0.0249, "recall_at_10": 0.0605, "ndcg_at_10": 0.0318},
    "s3-rec": {"recall_at_5": 0.0387, "ndcg_at_5": 0.0244, "recall_at_10": 0.0647, "ndcg_at_10": 0.0327},
    "bert4rec": {"recall_at_5": 0.0203, "ndcg_at_5": 0.0124, "recall_at_10": 0.0347, "ndcg_at_10": 0.0170},
    "sasrec, tuned (cornac)": {
        "recall_at_5": 0.0508,
        "ndcg_at_5": 0.0348,
        "recall_at_10": 0.0740,
        "ndcg_at_10": 0.0423,
    },
    "item co-occurrence": {"recall_at_10": 0.0739, "ndcg_at_10": 0.0469},
    "rpg": {"recall_at_5": 0.0550, "ndcg_at_5": 0.0381, "recall_at_10": 0.0809, "ndcg_at_10": 0.0464},
    "openonerec, 8B parameters": {"recall_at_10": 0.0925},
}
"""As others give them, to print beside ours: TIGER's paper for the first four, and what the names say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TigerForm:
    """Size and training of the TIGER row, which are chosen apart from OneRec's (see evaluation.beauty.choices)."""

    width: int = 192
    layers: int = 2
    dropout: float = 0.4
    forget: float = 0.0
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How much of everything: the full form, or less on a slice of the users."""

    name: str
    users: int | None
    validation_users: int
    """With so many of them the epoch is chosen."""
    codes: int
    beam: int
    beam_of_views: int
    width: int
    layers: int
    backward_share: float
    item_weight: float
    taught_share: float
    forget: float
    dropout: float
    content: Literal["ids", "text"]
    """Embeddings that item vectors are made of: those that the ids are made of, or texts alone."""
    generative: Recipe
    sequence: SequenceRecipe
    tiger: TigerForm

    def digest(self) -> str:
        """Changes with every figure of the form: results of different forms do not mix."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


FULL = Form(
    name="full",
    users=None,
    validation_users=6000,
    codes=256,
    beam=100,
    beam_of_views=60,
    width=192,
    layers=2,
    backward_share=0.5,
    item_weight=1.0,
    taught_share=0.5,
    forget=0.1,
    dropout=0.4,
    content="ids",
    generative=Recipe(),
    sequence=SequenceRecipe(),
    tiger=TigerForm(dropout=0.2),
)
QUICK = replace(
    FULL,
    name="quick",
    users=1500,
    validation_users=750,
    codes=64,
    beam=40,
    beam_of_views=30,
    width=64,
    dropout=0.3,
    generative=Recipe(epochs=6, batch=256, learning_rate=2e-3, looks=2),
    sequence=SequenceRecipe(epochs=6, batch=256, looks=2),
    tiger=TigerForm(width=64, dropout=0.3, recipe=Recipe(epochs=6, batch=256, learning_rate=2e-3, looks=2)),
)


def onerec_config(form: Form) -> ModelConfig:
    """OneRec for one next item."""
    return ModelConfig(
        name=f"beauty-{form.name}",
        levels=3,
        codes=form.codes,
        session_items=1,
        history_items=HISTORY_ITEMS,
        d_model=form.width,
        encoder_layers=form.layers,
        decoder_layers=form.layers,
        heads=form.width // 32,
        ffn_hidden=2 * form.width,
        experts=4,
        active_experts=2,
        expert_hidden=form.width,
        dropout=form.dropout,
        beam_width=form.beam,
        embedding_dim=form.width,
        reward_d_model=16,
    )


def tiger_config(form: Form) -> ModelConfig:
    """TIGER: a token for each code, no experts."""
    size = form.tiger
    own = onerec_config(replace(form, width=size.width, layers=size.layers, dropout=size.dropout))
    name = f"{own.name}-tiger"
    return replace(own, name=name, history_tokens="codes", experts=1, active_experts=1, expert_hidden=2 * size.width)


def described(form: Form) -> dict[str, Any]:
    """The protocol as the results state it."""
    return {"text": __doc__, "history_items": HISTORY_ITEMS, **asdict(form)}
