"""The protocol of the streaming study, in full.

**Data.** KuaiRand-Pure in data/kuairand-pure: the histories of before 25 April 2022 train the seed; the exposures from
25 April to 4 May are the stream. Item embeddings and semantic ids come of the histories alone.

**Test, then train.** Before each visit (a user's exposures with no gap of 30 minutes) every system ranks the whole
catalogue without what the user has been shown before. It is scored on what the user then watched long or liked:
HitRate@10 and NDCG@10 over the visits that hold such an item, of users with three earlier exposures or more. Reported
are the visits from 27 April on; those of 25 and 26 April are for choices, and every system has learned from them when
the report begins. So chosen, by NDCG@10, are the weights of `online + …` and the power of `counts, chosen`. Batch and
rate are the trainer's defaults; `--choose` compares others. `--frequency-power` is `trainer.frequency_power`, else 0.

**The stream without Kafka.** The joiner's own code makes sessions of the log and says at which event time each closes:
two minutes after its last exposure at the earliest. The trainer's own step (`trainer.step.apply_step`) learns from them
in that order, and a version learned until time t serves only visits that begin after t. Brokers and clocks are left
out: ten days pass in minutes. What they add to the delay is measured by `onerec demo`, in seconds.

**Systems.**
- `online`: steps of at most `batch` sessions, or of what has come `wait_s` after the first of them; what serves is
  exchanged every second.
- `sync 30 s` to `sync 1 day`: the same training; what serves is exchanged at whole multiples of the interval, as in
  Monolith's study of the synchronisation interval.
- `daily batch`: the same seed, trained on at each midnight (UTC) with the sessions of the day that ended, shuffled, in
  `batch_epochs` passes, then served for a day.
- `frozen`: the seed.
- `popularity`, `cooccurrence`, `cooccurrence_popularity`: counts that run on with the stream, exposure by exposure and
  without waiting for a visit's end. The last is co-occurrence times the root of popularity of a half-life of six hours.
- `counts, chosen`: co-occurrence times popularity to the power that was best before the report. With the three above
  it is all that is known to be strong on this log without a model.
- `online + popularity`, `online + counts`: the 32 best items of `online` in another order, by the sum of the model's
  log-probability and the weighed logarithms of an item's share of popularity, and of co-occurrence with what the user
  has been shown; both run on with the stream. Nothing is ranked that the model has not found. It is a step after the
  system that `onerec up` serves, and no part of it.

**Figures.** Means over visits; differences are paired by visit, first averaged over seeds, with the standard error over
visits. Seeds make initial weights, order of the seed's samples and dropout. The log shows what Kuaishou's own system
chose to expose: figures compare systems and are no measure of quality.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
BEGIN_MS = 1_650_844_800_000
"""25 April 2022, 00:00 UTC."""
REPORT_MS = BEGIN_MS + 2 * DAY_MS
"""27 April 2022, 00:00 UTC: choices were made on the visits before."""
MIN_HISTORY = 3
TOP = 10
BEAM = 32
"""Of the search, and how many of the best items are candidates for another order."""
ONLINE, FROZEN, DAILY = "online", "frozen", "daily batch"
CHOSEN, WITH_POPULARITY, WITH_COUNTS = "counts, chosen", "online + popularity", "online + counts"
INTERVALS_MS = {
    ONLINE: 1_000,
    "sync 30 s": 30_000,
    "sync 10 min": 600_000,
    "sync 1 h": 3_600_000,
    "sync 1 day": DAY_MS,
}
"""By system how often what serves is exchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the stream is learned from: what was chosen on the first two days."""

    batch: int = 64  # sessions a step, at most
    wait_s: int = 600  # event time after which a step takes what there is
    learning_rate: float = 1e-4
    frequency_power: float = 0.0  # trainer.frequency_power: how much less an exposure weighs of what is shown often
    batch_epochs: int = 1  # of the daily batch
    batch_learning_rate: float = 1e-4

    def digest(self) -> str:
        """Changes with every figure of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How much of everything."""

    name: str
    users_of: int  # one user of so many
    from_ms: int  # visits are reported from here on, those before are for choices
    end_ms: int  # of the stream
    samples: int  # of the seed
    recipe: Recipe = Recipe()

    @property
    def suffix(self) -> str:
        """Of its results' files: what it has other than the full form of the trainer's own settings."""
        power = self.recipe.frequency_power
        return ("" if self.name == "full" else f"-{self.name}") + (f"-frequency-{power:g}" if power else "")

    def digest(self) -> str:
        """Changes with every figure of the form: results of different forms do not mix."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


FULL = Form(name="full", users_of=1, from_ms=REPORT_MS, end_ms=BEGIN_MS + 10 * DAY_MS, samples=240_000)
SHORT = Form(name="short", users_of=1, from_ms=REPORT_MS, end_ms=BEGIN_MS + 6 * DAY_MS, samples=240_000)
"""As the full form, until 30 April."""
QUICK = Form(name="quick", users_of=5, from_ms=REPORT_MS, end_ms=BEGIN_MS + 4 * DAY_MS, samples=10_000)
"""A fifth of the users until 28 April, a seed of half a minute: shows that the study runs."""


def chosen(user_ids: NDArray[np.int64], one_of: int) -> NDArray[np.bool_]:
    """Which users a form is about: one of so many, by a hash of the user's id."""
    mixed = user_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found: NDArray[np.bool_] = (mixed >> np.uint64(40)) % np.uint64(one_of) == 0
    return found


def described(form: Form) -> dict[str, Any]:
    """The protocol as the results state it."""
    return {"text": __doc__, "reported_from": "2022-04-27T00:00:00Z", "top": TOP, **asdict(form)}
