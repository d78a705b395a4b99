"""Hot swap: follows model-versions, loads the next version beside the current one, swaps between two batches.

Two sets of modules take turns. A thread loads into the spare set (delta onto the raw published tensors, digest,
cast into the modules, engine); the serving thread takes it with one assignment when it asks for `current()`
the next time. Where anything is wrong with a version, the one before goes on being served.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from inference.following import FollowingThread, Turns
from inference.weights_metrics import weights_metrics
from onerec.degraded import Lack
from onerec.device import CPU
from onerec.errors import DependencyMissingError, OneRecError
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.model.onerec import OneRec
from onerec.model.presets import preset
from onerec.model.reward import RewardModel
from onerec.settings import Settings
from onerec.weights.errors import IncompatibleWeightsError, VersionMissingError
from onerec.weights.record import record_of
from onerec.weights.serving import ServingChoice
from onerec.weights.signature import verifier_of
from onerec.weights.store import Loaded, WeightsStore
from schemas.records import ModelVersion, VersionStatus
from schemas.topics import MODEL_VERSIONS

LOG = logging.getLogger(__name__)
CATCH_UP_S = 30.0
POLL_S = 0.1
ANNOUNCED = 1000  # records kept for freshness while none of them is served
BOUND = ("model", "version", "parent", "kind", "sha256", "size_bytes", "step", "preset", "codebook_version")
"""What an announcement says of a version and its manifest, which may be signed, says too."""
RETRY_S = (0.5, 1.0, 2.0, 5.0)
LOOK_S = 5.0
"""How often to look whether the store is there, though nothing is to be loaded: without it nothing would come."""
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class ServedVersion(Generic[E]):
    """A version in memory: its modules (eval, no gradients), what `prepare` made of them, and its record."""

    version: int
    onerec: OneRec
    reward: RewardModel
    record: ModelVersion
    engine: E


class _Modules:
    """One of the two sets: written by the loading thread while nobody serves from it."""

    def __init__(self, name: str, dtype: torch.dtype, device: torch.device) -> None:
        config = preset(name)
        self.onerec = OneRec(config).to(device, dtype).eval().requires_grad_(requires_grad=False)
        self.reward = RewardModel(config).to(device, dtype).eval().requires_grad_(requires_grad=False)
        self._targets: dict[str, Tensor] = {
            f"{prefix}.{key}": tensor
            for prefix, module in (("onerec", self.onerec), ("reward", self.reward))
            for key, tensor in module.state_dict().items()
        }

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes that a version must have."""
        return {name: tuple(tensor.shape) for name, tensor in self._targets.items()}

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a version in, cast to the modules' dtypes, on their device; the modules stay where they are."""
        with torch.no_grad():
            for name, target in self._targets.items():
                target.copy_(tensors[name])


class _Swap(NamedTuple, Generic[E]):
    """One version taken in the place of another."""

    taken: ServedVersion[E]
    left: ServedVersion[E] | None
    """What was served before. Its engine may take longer to be given back than a swap may take, so another thread
    holds it last."""
    at_ms: int
    pause_s: float


class VersionFollower(Generic[E]):
    """Gives ONE serving thread the version to serve. What `current()` returned is void after the next call."""

    def __init__(
        self,
        settings: Settings,
        prepare: Callable[[OneRec, RewardModel], E],
        *,
        service: str = "worker",
        pin_version: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> None:
        """`prepare` makes the engine of a version, on the loading thread, before it is swapped in.

        The modules, and so the engines, are on `device`.

        `pin_version` serves that version whatever is published. Start it with `start()` or as a context manager.
        """
        self._settings = settings
        self._prepare = prepare
        self._service = service
        self._pin_version = pin_version
        self._store = WeightsStore(settings.store.uri, verifier=verifier_of(settings.store))
        self._metrics = weights_metrics(service)
        self._choice = ServingChoice()
        self._announced: dict[int, ModelVersion] = {}
        self._sets = [_Modules(settings.model.configuration, dtype, device) for _ in range(2)]
        self._raw: Loaded | None = None
        self._served: ServedVersion[E] | None = None
        self._next: ServedVersion[E] | None = None
        self._lock = threading.Lock()
        self._swapped: deque[_Swap[E]] = deque()
        self._first = threading.Event()
        self._fatal: BaseException | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._reach = Lack(service, "weights store")
        self._look_at = 0.0
        self._thread = FollowingThread(f"{service}-versions", self._follow)

    def __enter__(self) -> VersionFollower[E]:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; what is served stays."""
        self._thread.close()

    @property
    def has_version(self) -> bool:
        """Whether `current()` has something to return."""
        return self._first.is_set()

    def wait_first(self, timeout_s: float) -> ServedVersion[E]:
        """Wait for the first version and take it. Raises DependencyMissingError when none comes."""
        if not self._first.wait(timeout_s) and self._fatal is None:
            raise DependencyMissingError(
                f"No version of model {self._settings.model.name} could be loaded within {timeout_s:g} s.",
                "Start the trainer, and see that store.uri is the trainer's.",
            )
        return self.current()

    def current(self) -> ServedVersion[E]:
        """The version to serve now; call it between batches. Raises what stopped the following, if anything did."""
        if self._next is not None:
            self._take()
        if self._fatal is not None:
            raise self._fatal
        if self._served is None:
            raise DependencyMissingError("No version of the model has been loaded yet.", "Call wait_first before.")
        return self._served

    def _take(self) -> None:
        started = time.perf_counter()
        with self._lock:
            taken, left = self._next, self._served
            if taken is not None:
                self._served, self._next = taken, None
        if taken is not None:
            self._swapped.append(_Swap(taken, left, time.time_ns() // 1_000_000, time.perf_counter() - started))

    def _follow(self) -> Turns:
        try:
            follower = TopicFollower(self._settings.kafka, MODEL_VERSIONS, self._on_record, service=self._service)
            try:
                follower.catch_up(CATCH_UP_S)
                while True:
                    self._advance()
                    self._look_where_due()
                    self._observe()
                    follower.poll(POLL_S)
                    yield
            finally:
                follower.close()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._fatal = error
            self._first.set()
            raise

    def _on_record(self, received: Received) -> None:
        record: ModelVersion = received.record
        if record.model != self._settings.model.name:
            return
        if record.status is VersionStatus.PUBLISHED:
            self._announced[record.version] = record
            if len(self._announced) > ANNOUNCED:
                del self._announced[min(self._announced)]
        self._choice.apply(record)
        self._metrics.newest.set(self._choice.newest)
        self._retry_at = 0.0

    def _target(self) -> int | None:
        if self._pin_version is not None:
            return self._pin_version if self._choice.newest >= self._pin_version else None
        return self._choice.version

    def _advance(self) -> None:
        """Load the version that is to be served, if it is another one than the last loaded."""
        target = self._target()
        if target is None or self._has(target) or time.monotonic() < self._retry_at:
            return
        if self._served is None and self._next is not None:
            return  # the first version is never withdrawn: somebody may be waiting for it
        started = time.perf_counter()
        try:
            self._load(target)
        except OneRecError as error:
            self._failed(target, error)
            return
        self._metrics.load.observe(time.perf_counter() - started)
        self._failures = 0

    def _has(self, version: int) -> bool:
        """Whether it is what was loaded last, and not announced with other weights since."""
        record = self._announced.get(version)
        raw = self._raw
        return raw is not None and raw.version == version and (record is None or record.sha256 == raw.sha256)

    def _load(self, version: int) -> None:
        stored = record_of(self._store.manifest(version))
        record = self._announced.get(version, stored)
        self._store.check_uri(record.uri, version)
        self._check(record, stored)
        loaded = self._store.read(version, self._raw, self._sets[0].shapes)
        spare = self._spare()
        spare.fill(loaded.tensors)
        engine = self._prepare(spare.onerec, spare.reward)
        self._raw = loaded
        self._next = ServedVersion(version, spare.onerec, spare.reward, record, engine)
        self._first.set()

    def _check(self, record: ModelVersion, stored: ModelVersion) -> None:
        """What was announced must be what is stored, and where versions are signed, what is signed."""
        wanted = self._settings.model.configuration
        if record.preset != wanted:
            raise IncompatibleWeightsError(
                f"Version {record.version} is of preset {record.preset}, this service runs {wanted}.",
                "Set model.preset and model.decoder alike for all services.",
            )
        differ = [name for name in BOUND if getattr(record, name) != getattr(stored, name)]
        if differ:
            raise VersionMissingError(
                f"Version {record.version} in the store is not the one that was announced: {', '.join(differ)} differ.",
                "See that store.uri is the trainer's.",
            )

    def _look_where_due(self) -> None:
        """Tell that the store has gone or is back."""
        if time.monotonic() < self._look_at or not self._choice.newest:
            return
        self._look_at = time.monotonic() + LOOK_S
        try:
            self._store.check_there()
        except OneRecError as error:
            self._reach.missing(f"{self._serving()} goes on: {error}")
        else:
            self._reach.there()

    def _serving(self) -> str:
        return "nothing" if self._served is None else f"version {self._served.version}"

    def _spare(self) -> _Modules:
        """The set that nobody serves from: what waits to be taken is withdrawn first."""
        with self._lock:
            self._next = None
            served = self._served
        return self._sets[1] if served is not None and served.onerec is self._sets[0].onerec else self._sets[0]

    def _failed(self, version: int, error: OneRecError) -> None:
        wait_s = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._retry_at = time.monotonic() + wait_s
        LOG.warning(
            "version %d cannot be served, %s goes on; next try in %g s: %s", version, self._serving(), wait_s, error
        )
        self._metrics.failures.labels(type(error).__name__).inc()  # last: who sees it finds the reason in the log

    def _observe(self) -> None:
        """Tell of swaps, off the serving thread."""
        while self._swapped:
            swap = self._swapped.popleft()
            version = swap.taken.version
            self._metrics.version.set(version)
            if swap.left is not None:
                self._metrics.pause.observe(swap.pause_s)
                self._metrics.swaps.inc()
            LOG.info("serving version %d", version)
            for learned in sorted(v for v in self._announced if v <= version):
                self._observe_freshness(self._announced.pop(learned), swap.at_ms)

    def _observe_freshness(self, record: ModelVersion, at_ms: int) -> None:
        for produced_ms in np.frombuffer(record.learned_produced_ms, "<i8").tolist():
            self._metrics.freshness.observe(max(0.0, (at_ms - produced_ms) / 1000.0))
