"""What a reproduction came to: identical, within the bound of another environment, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trainer.environment import RANKS

BOUND = 0.1
"""Largest difference of an element, as a share of its tensor's largest element, that another rounding explains."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the weights made are from those published, where they are farthest."""

    max_abs: float
    """Largest absolute difference of an element."""
    relative: float
    """Largest absolute difference of an element as a share of its tensor's largest element."""
    tensor: str
    """Where `relative` was found."""

    @classmethod
    def between(cls, made: Mapping[str, Tensor], published: Mapping[str, Tensor]) -> Distance:
        """Of two versions with the same tensors."""
        worst = cls(0.0, 0.0, "")
        for name, wanted in published.items():
            a, b = made[name].double(), wanted.double()
            if not a.numel():
                continue
            difference = float((a - b).abs().max())
            scale = max(float(a.abs().max()), float(b.abs().max()))
            relative = difference / scale if difference else 0.0
            worst = cls(
                max(worst.max_abs, difference),
                max(worst.relative, relative),
                name if relative > worst.relative else worst.tensor,
            )
        return worst


@dataclass(frozen=True, slots=True)
class Reproduced:
    """One version, made again."""

    version: int
    step: int
    base: str
    """What it was made from."""
    steps: int
    """Steps executed from there, the seed's included."""
    expected_sha256: str
    """The journal's."""
    announced_sha256: str | None
    """That of model-versions or the store's manifest; None where neither has the version any more."""
    made_sha256: str
    distance: Distance | None
    """None where the store no longer has the version's weights, and where nothing differs."""
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What decides bits and differs between the journal's environment and this one: (there, here)."""
    first_difference: int | None = None
    """The first step whose losses are not those in the journal."""

    @property
    def identical(self) -> bool:
        """Bit for bit what the journal says and what was announced."""
        return self.made_sha256 == self.expected_sha256 and self.announced_sha256 in (None, self.expected_sha256)

    @property
    def same_environment(self) -> bool:
        """Whether identity is promised."""
        return not self.differences

    @property
    def passed(self) -> bool:
        """Identical, or on another environment within the bound."""
        near = self.distance is not None and self.distance.relative <= BOUND
        honest = self.announced_sha256 in (None, self.expected_sha256)
        return self.identical or (honest and near and not self.same_environment)

    def sentence(self) -> str:
        """The verdict for people."""
        if self.identical:
            return f"Version {self.version} is identical, bit for bit."
        if self.announced_sha256 not in (None, self.expected_sha256):
            return (
                f"Version {self.version} was announced with SHA-256 {(self.announced_sha256 or '')[:12]}, the journal "
                f"says {self.expected_sha256[:12]}."
            )
        where = "" if self.first_difference is None else f" Its losses differ from step {self.first_difference} on."
        if self.same_environment:
            return (
                f"Version {self.version} came out otherwise on the environment that it was made on: log, journal or "
                f"checkpoint have changed, or a kernel does not repeat its bits.{where}"
            )
        other = "; ".join(
            f"{key} was {there or 'none'}, is {here or 'none'}" for key, (there, here) in self.differences.items()
        )
        return (
            f"Version {self.version} was made on another environment ({other}): {self._near()}{where}{self._launch()}"
        )

    def _launch(self) -> str:
        """How to have as many ranks as the trainer had, where they are not as many."""
        if RANKS not in self.differences:
            return ""
        there, _ = self.differences[RANKS]
        how = f"under `torchrun --nproc-per-node {there} -m trainer reproduce`" if there else "without torchrun"
        return f" Identity is promised {how}."

    def _near(self) -> str:
        if self.distance is None:
            return "identity is not promised, and the store no longer has its weights to compare with."
        share = f"{100 * self.distance.relative:.2g} % of the largest element in {self.distance.tensor}"
        bound = f"{100 * BOUND:g} %"
        if self.passed:
            return f"identity is not promised, the largest difference is {share}, within the bound of {bound}."
        return f"the largest difference is {share}, beyond the bound of {bound} that rounding explains."


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All that was asked for, in order of version."""

    versions: tuple[Reproduced, ...]

    @property
    def identical(self) -> bool:
        """All of them."""
        return all(each.identical for each in self.versions)

    @property
    def passed(self) -> bool:
        """All of them identical, or within the bound where the environment is another."""
        return all(each.passed for each in self.versions)

    @property
    def same_environment(self) -> bool:
        """All were made on an environment like this one."""
        return all(each.same_environment for each in self.versions)
