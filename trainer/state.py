"""Everything a step changes, and nothing else: weights, optimizers, offsets, what has been seen, counters.

A step's random numbers are a function of the run's seed and the step, so no generator state has to be kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel
from onerec.model.trie import Trie
from onerec.settings import TrainerSettings
from trainer.eager import EagerAdamW
from trainer.frequency import ExposureFrequency
from trainer.placement import NewestTrie

if TYPE_CHECKING:  # it loads what a trainer in one process does without
    from trainer.data_parallel import DataParallel
    from trainer.recorded import RecordedGradients

Partition = tuple[str, int]
"""Topic name without the prefix, partition."""

_MASK = (1 << 64) - 1


def step_seed(run_seed: int, step: int) -> int:
    """Seed of a step's random numbers: SplitMix64 of run seed and step, in [0, 2^63)."""
    z = (run_seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


class SeenWindow:
    """The last `capacity` ids, in the order they came: a record whose id is here has been applied.

    A set with a queue beside it: a dict finds its oldest key only by walking over those that were deleted before it.
    """

    def __init__(self, capacity: int, ids: Iterable[int] = ()) -> None:
        self._capacity = capacity
        self._order = deque(dict.fromkeys(ids))
        self._ids = set(self._order)

    def add(self, identifier: int) -> bool:
        """Remember the id; False where it was known already."""
        if identifier in self._ids:
            return False
        self._ids.add(identifier)
        self._order.append(identifier)
        self.resize(self._capacity)
        return True

    def resize(self, capacity: int) -> None:
        """Remember at most `capacity` ids from here on."""
        self._capacity = capacity
        while len(self._order) > capacity:
            self._ids.remove(self._order.popleft())

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)


@dataclass(slots=True)
class TrainState:
    """What a checkpoint holds. `step` counts from the seed's first; `online_from` is the seed's last."""

    config: ModelConfig
    settings: TrainerSettings
    onerec: OneRec
    reward: RewardModel
    onerec_optimizer: AdamW
    reward_optimizer: AdamW
    seen_sessions: SeenWindow
    seen_pairs: SeenWindow
    offsets: dict[Partition, int]
    """The first offset not yet applied, of every partition the trainer reads."""
    step: int = 0
    online_from: int = 0
    version: int = 0
    """The newest published version; 0 before the seed's."""
    parts: int = 1
    """Into how many parts a step's batch is cut: one for each rank of the trainer that makes it."""
    frequency: ExposureFrequency | None = None
    """How often items are shown, where the loss asks for it."""
    parallel: DataParallel | None = None
    """The ranks that the models are on; None for this process alone."""
    newest_trie: NewestTrie = field(default_factory=NewestTrie)
    recorded: RecordedGradients | None = None
    """CUDA graphs of steps, which a step makes where it can."""

    @classmethod
    def new(cls, config: ModelConfig, settings: TrainerSettings) -> TrainState:
        """A fresh model, a function of config and `settings.random_seed`."""
        torch.manual_seed(step_seed(settings.random_seed, 0))
        onerec, reward = OneRec(config), RewardModel(config)
        return cls(
            config=config,
            settings=settings,
            onerec=onerec,
            reward=reward,
            onerec_optimizer=adamw(onerec, settings.learning_rate, settings),
            reward_optimizer=adamw(reward, settings.reward_learning_rate, settings),
            seen_sessions=SeenWindow(settings.pair_window),
            seen_pairs=SeenWindow(settings.pair_window),
            offsets={},
            frequency=_frequency(settings, None),
        )

    def use(self, settings: TrainerSettings) -> None:
        """Go on with other settings: what a step does depends on those it is made with."""
        self.settings = settings
        for optimizer in (self.onerec_optimizer, self.reward_optimizer):
            for group in optimizer.param_groups:
                group["betas"], group["weight_decay"] = settings.betas, settings.weight_decay
        self.seen_sessions.resize(settings.pair_window)
        self.seen_pairs.resize(settings.pair_window)
        self.frequency = _frequency(settings, self.frequency)

    def restart_optimizers(self) -> None:
        """Forget the seed's moments: the stream goes on at another learning rate, with its own warm-up."""
        self.onerec_optimizer = adamw(self.onerec, self.settings.learning_rate, self.settings)
        self.reward_optimizer = adamw(self.reward, self.settings.reward_learning_rate, self.settings)
        self.online_from = self.step

    def warmth(self) -> float:
        """Share of the learning rates that the next step uses: linear over the warm-up, then 1 for good."""
        steps = self.step + 1 - self.online_from
        return min(1.0, steps / max(1, self.settings.warmup_steps))

    @property
    def device(self) -> torch.device:
        """Where this process has its models."""
        return self.onerec.bos.device

    def trie(self, trie: Trie) -> Trie:
        """A catalogue's trie on that device."""
        return self.newest_trie.on(self.device, trie)

    def move(self, device: torch.device) -> None:
        """Take models and moments to a device. For a state that is not on ranks."""
        if device == self.device:
            return
        moments, self.recorded = self.moments(), None
        for name, model, optimizer in (
            ("onerec", self.onerec, self.onerec_optimizer),
            ("reward", self.reward, self.reward_optimizer),
        ):
            model.to(device)
            _restore_moments(model, optimizer, _of(f"optimizer.{name}", moments))

    def weights(self) -> dict[str, Tensor]:
        """The tensors of a version: `onerec.<key>` and `reward.<key>`, on CPU; no copies where they lie whole there."""
        tensors = _prefixed("onerec", self.onerec.state_dict()) | _prefixed("reward", self.reward.state_dict())
        return _on_cpu(tensors) if self.parallel is None else self.parallel.whole(tensors, "weights")

    def moments(self) -> dict[str, Tensor]:
        """The optimizers' tensors, on CPU; no copies where they lie whole there."""
        tensors = {
            **_moments("onerec", self.onerec, self.onerec_optimizer),
            **_moments("reward", self.reward, self.reward_optimizer),
        }
        return _on_cpu(tensors) if self.parallel is None else self.parallel.whole(tensors, "moments")

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps as tensors, the same on any number of ranks."""
        frequency = {} if self.frequency is None else _prefixed("frequency", self.frequency.tensors())
        return {
            **self.weights(),
            **self.moments(),
            **frequency,
            "seen.sessions": torch.tensor(list(self.seen_sessions), dtype=torch.int64),
            "seen.pairs": torch.tensor(list(self.seen_pairs), dtype=torch.int64),
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned. Raises RuntimeError where a weight is missing or misshapen."""
        self.load_models(tensors)
        capacity = self.settings.pair_window
        self.seen_sessions = SeenWindow(capacity, tensors["seen.sessions"].tolist())
        self.seen_pairs = SeenWindow(capacity, tensors["seen.pairs"].tolist())
        if self.frequency is not None and (kept := _of("frequency", tensors)):  # else it is asked for from here on
            self.frequency.load_tensors(kept)

    def load_models(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over weights and moments. Raises RuntimeError where a weight is missing or misshapen."""
        for name, model, optimizer in (
            ("onerec", self.onerec, self.onerec_optimizer),
            ("reward", self.reward, self.reward_optimizer),
        ):
            weights, moments = _of(name, tensors), _of(f"optimizer.{name}", tensors)
            if self.parallel is not None:
                weights, moments = self.parallel.placed(model, weights), self.parallel.placed(model, moments)
            model.load_state_dict(weights)
            _restore_moments(model, optimizer, moments)


def adamw(model: nn.Module, learning_rate: float, settings: TrainerSettings) -> AdamW:
    """AdamW over all parameters of a model."""
    return EagerAdamW(
        model.parameters(),
        lr=learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _frequency(settings: TrainerSettings, before: ExposureFrequency | None) -> ExposureFrequency | None:
    """What the settings ask for; it goes on from what was counted before."""
    if not settings.frequency_power:
        return None
    found = before or ExposureFrequency(settings.frequency_half_life)
    found.half_life = settings.frequency_half_life
    return found


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _moments(name: str, model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}.{parameter_name}/{slot}": value
        for parameter_name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_moments(model: nn.Module, optimizer: AdamW, moments: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, value in moments.items():
        parameter_name, slot = key.rsplit("/", 1)
        parameter = parameters[parameter_name]
        state: dict[str, Any] = optimizer.state[parameter]
        state[slot] = value.to(parameter.device).clone()
