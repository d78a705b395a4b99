"""The protocol of the A/B run, in full.

**System.** One running system on one broker: tokenizer, joiner and topics are shared, and every arm answers requests
through Kafka. Users are split into arms by a hash of their ids and see their own arm's answers only.

- `cascade`: retrieval by SASRec (full softmax), pre-ranking by two towers, ranking by an MMoE with attention over the
  user's exposures; the ranking's first five items are the session. Trained once, before the run, on all histories from
  before the log and on the warm-up's exposures with their watch times and follows. How long its models train and how
  many items leave its stages was chosen by the simulator, on users who are not in the run (`--choose-cascade`).
- `onerec-frozen`: a worker with the seed's weights, which learned from the same histories and never learn again. So it
  is to the cascade as model to model, and `onerec` is to it what learning from the stream is worth.
- `onerec`: worker and continuous trainer, preference loss off.
- `onerec-ipa`: the same worker and trainer from the same seed, with the sampler's preference pairs of live requests.

Both trainers learn from the sessions of all arms: arms differ in their models, not in their data. They weigh exposures
of what is shown often less (`trainer.frequency_power = 1`; `--frequency-power 0` is the run without it). Two days pass
in minutes; simulated time waits while joiner or trainers have more than 500 events unread, so that weights are about
as old as they would be in two real days.

**Warm-up.** Logged exposures of users who are not in the run are joined and learned from first: from them the reward
model learns watch times, which histories do not tell, and the cascade has the same.

**Users.** The simulator of `python -m evaluation simulator` (fitted on one half of KuaiRand's users; the users of the
run are of the other half, as they were before 25 April 2022). Draws are functions of seed, user, item and time. The log
is a thinned sample, so a simulated session has 1.2 items on average and returns are hours apart.

**Figures.** Watch time per session (a visit from the request to leaving) over the visits that begin after the first
quarter of the run and end within it, with 95 % intervals by a bootstrap over users. `expected` takes each item's mean
watch time instead of the one drawn: the same quantity with less noise. Uplift is relative. Judged by a simulator that
was fitted on what another system chose to show, the figures compare arms on that simulator and say nothing of people.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

CASCADE, FROZEN, ONEREC, IPA = "cascade", "onerec-frozen", "onerec", "onerec-ipa"
ARMS = (CASCADE, FROZEN, ONEREC, IPA)
TOPICS = {
    CASCADE: "recommendations-cascade",
    FROZEN: "recommendations-frozen",
    ONEREC: "recommendations-plain",
    IPA: "recommendations",
}
"""By arm the topic of its answers."""
COMPARED = ((FROZEN, CASCADE), (ONEREC, CASCADE), (IPA, CASCADE), (ONEREC, FROZEN), (IPA, ONEREC))
BURN_IN = 0.25
BOOTSTRAPS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How much of everything."""

    name: str
    users: int | None  # in the run, None for all of the held-out half
    hours: float  # of event time
    warm_exposures: int
    seed_samples: int
    cascade_users: int | None
    retrieval_epochs: int  # of the cascade's SASRec
    ranking_epochs: int  # of its pre-ranker and ranker
    retrieved: int  # items that leave retrieval
    pre_ranked: int  # and pre-ranking
    pair_share: float  # of live requests that make a preference pair
    candidates: int
    preference_weight: float = 0.1  # lambda of the trainer with pairs; what is configured by default
    frequency_power: float = 1.0  # of both trainers: how much less an exposure weighs of what is shown often

    def digest(self) -> str:
        """Changes with every figure of the form."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


FULL = Form(
    name="full",
    users=None,
    hours=48.0,
    warm_exposures=20_000,
    seed_samples=60_000,
    cascade_users=None,
    retrieval_epochs=10,
    ranking_epochs=2,
    retrieved=100,
    pre_ranked=7,
    pair_share=0.1,
    candidates=32,
)
SHORT = Form(
    name="short",
    users=6_000,
    hours=24.0,
    warm_exposures=8_000,
    seed_samples=30_000,
    cascade_users=8_000,
    retrieval_epochs=10,
    ranking_epochs=2,
    retrieved=500,
    pre_ranked=100,
    pair_share=0.2,
    candidates=32,
)
"""In about ten minutes on two cores. Retrieval that has seen few users finds little; so more is let through."""
QUICK = Form(
    name="quick",
    users=1_500,
    hours=12.0,
    warm_exposures=1_500,
    seed_samples=6_000,
    cascade_users=2_000,
    retrieval_epochs=10,
    ranking_epochs=2,
    retrieved=500,
    pre_ranked=100,
    pair_share=0.3,
    candidates=16,
)
SMOKE = Form(
    name="smoke",
    users=90,
    hours=4.0,
    warm_exposures=300,
    seed_samples=640,
    cascade_users=300,
    retrieval_epochs=1,
    ranking_epochs=1,
    retrieved=500,
    pre_ranked=100,
    pair_share=0.5,
    candidates=8,
)
"""Shows that the system runs; its figures say nothing."""
FORMS = {form.name: form for form in (FULL, SHORT, QUICK, SMOKE)}


def arm_of(user_id: int, seed: int = 0) -> str:
    """The arm of a user."""
    digest = hashlib.blake2b(f"{seed}/{user_id}".encode(), digest_size=8, person=b"arms").digest()
    return ARMS[int.from_bytes(digest, "little") % len(ARMS)]


def described(form: Form) -> dict[str, Any]:
    """The protocol as the results state it."""
    return {"text": __doc__, "arms": list(ARMS), "burn_in": BURN_IN, **asdict(form)}
