"""The Faust service: a share of the live requests, one preference pair each.

The event loop only decides which requests are sampled. One work thread owns everything else: catalogue, histories,
model and the writer of pairs; so a slow model never keeps the loop from polling the broker. A request counts as
done once its pair is on the broker, and the pair's id is a function of the request: after a crash it is made again
under the same id, and the trainer applies it once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import torch

from inference.engine.captures import Captures
from inference.engine.index import IndexCache
from inference.engine.native import check
from inference.engine.search import Engine
from inference.sampler import metrics
from inference.sampler.identity import is_sampled, pair_id_of
from inference.sampler.inputs import Inputs
from inference.sampler.pairs import Extremes, PairMaker, Scored
from inference.weights import ServedVersion, VersionFollower
from onerec.catalogue import CatalogueSnapshot
from onerec.device import device_of
from onerec.errors import OneRecError
from onerec.faust_service import FaustHost, run_faust_service
from onerec.features import HistoryArrays
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.model.onerec import OneRec
from onerec.model.reward import RewardModel
from onerec.settings import RewardWeights, Settings
from schemas.packed import pack_longs
from schemas.records import PreferencePair, Request, Rewards
from schemas.topics import PREFERENCES, REQUESTS, id_key

LOG = logging.getLogger(__name__)
MAX_PENDING = 1000
"""Sampled requests that may wait, for their turn or for the first model; more are skipped and counted."""
MAX_BEHIND = 10_000
"""Requests that may stand behind the oldest one that waits, since none of them can be committed before it; sampling
pauses from there on, so that a slow model makes fewer pairs and the reading of requests does not fall behind."""
POLL_S = 0.2
CHECK_S = 1.0


def run(settings: Settings) -> int:
    """Run until told to stop; the exit code."""
    return run_faust_service("sampler", settings, lambda host: Sampler(host).start())


class Sampler:
    """Requests in, preference pairs out."""

    def __init__(self, host: FaustHost) -> None:
        torch.set_num_threads(1)
        settings = host.settings
        self._host = host
        self._settings = settings.inference.sampler
        indexes, captures, kernels = IndexCache(), Captures(), settings.inference.decoding.kernels
        check.require(kernels)
        device = device_of(settings.inference.decoding.device, "inference.decoding.device")
        self._inputs = Inputs(settings, indexes, device)
        host.resources.callback(self._inputs.close)

        def prepare(onerec: OneRec, reward: RewardModel) -> PairMaker:
            engine = Engine(onerec, indexes=indexes, captures=captures, kernels=kernels, precise=True)
            return PairMaker(engine, reward, self._settings)

        versions = VersionFollower(settings, prepare, service="sampler", device=device)
        self._versions = host.resources.enter_context(versions)
        self._writer = RecordWriter(settings.kafka)
        self._pending = 0
        self._unacknowledged: Callable[[], int] = lambda: 0

    def start(self) -> None:
        """Restore the state, then take requests."""
        self._inputs.wait(self._host.stop)
        self._unacknowledged = self._host.consume(REQUESTS, self.handle, at_once=MAX_PENDING + 1).unacknowledged
        self._host.app.task(self._check)

    async def handle(self, received: Received) -> None:
        """One request."""
        request: Request = received.record
        metrics.REQUESTS.inc()
        if not is_sampled(request.request_id, self._settings.share):
            return
        metrics.SAMPLED.inc()
        if self._pending >= MAX_PENDING or self._unacknowledged() > MAX_BEHIND:
            metrics.SKIPPED.labels("overloaded").inc()
            return
        self._count(1)
        try:
            while not self._versions.has_version:
                await asyncio.sleep(POLL_S)
            await self._host.in_thread(self._sample, request)
        finally:
            self._count(-1)

    async def _check(self) -> None:
        """End the service where what it follows has ended, requests or none."""
        while True:
            try:
                self._inputs.check()
            except OneRecError as error:
                self._host.fail(error)
            await asyncio.sleep(CHECK_S)

    def _sample(self, request: Request) -> None:
        """Make, send and await one pair; on the work thread."""
        served = self._versions.current()
        catalogue = self._inputs.catalogue(served.record.codebook_version)
        if catalogue is None:
            metrics.SKIPPED.labels("no_items").inc()
            return
        history = self._inputs.history(request.user_id)
        with metrics.SECONDS.time():
            exclude, allowed = self._inputs.constraints(request, history, catalogue)
            pair_id = pair_id_of(request.request_id)
            found = served.engine.extremes(history, catalogue, exclude=exclude, allowed=allowed, seed=pair_id)
        if found is None:
            metrics.SKIPPED.labels("all_alike").inc()
            return
        pair = pair_of(request, history, found, served, catalogue)
        self._writer.send(PREFERENCES, id_key(request.user_id), pair, timestamp_ms=request.time_ms)
        self._writer.flush(self._host.kafka.broker_patience_s)
        _observe(found, self._settings.rewards)

    def _count(self, change: int) -> None:
        self._pending += change
        metrics.PENDING.set(self._pending)


def pair_of(
    request: Request,
    history: HistoryArrays,
    found: Extremes,
    served: ServedVersion[PairMaker],
    catalogue: CatalogueSnapshot,
) -> PreferencePair:
    """The record: the reference model's log-probabilities are those of the version that generated it."""
    return PreferencePair(
        pair_id=pair_id_of(request.request_id),
        request_id=request.request_id,
        user_id=request.user_id,
        time_ms=request.time_ms,
        history_items=pack_longs(history.items.tolist()),
        history_times_ms=pack_longs(history.times_ms.tolist()),
        history_labels=history.labels.tobytes(),
        chosen=tuple(catalogue.item_ids[found.best.leaves.numpy()].tolist()),
        rejected=tuple(catalogue.item_ids[found.worst.leaves.numpy()].tolist()),
        chosen_log_prob=found.best.log_prob,
        rejected_log_prob=found.worst.log_prob,
        chosen_rewards=_rewards(found.best),
        rejected_rewards=_rewards(found.worst),
        candidates=found.candidates,
        model_version=served.version,
        catalogue_offset=catalogue.offset,
    )


def _rewards(scored: Scored) -> Rewards:
    return Rewards(**scored.rewards, scalar=scored.scalar)


def _observe(found: Extremes, weights: RewardWeights) -> None:
    metrics.PAIRS.inc()
    metrics.MARGIN.observe(found.best.scalar - found.worst.scalar)
    metrics.SPREAD.observe(found.unique_share)
    shares = weights.model_dump()
    total = sum(abs(share) for share in shares.values()) or 1.0
    for which, scored in (("chosen", found.best), ("rejected", found.worst)):
        metrics.REWARD.labels(which).observe(sum(shares[name] * x for name, x in scored.rewards.items()) / total)
        for name, value in scored.rewards.items():
            metrics.OBJECTIVE.labels(which, name).observe(value)
