"""Is a certificate wrong as rarely as it says, and what does it cost? Two thousand simulated
deployments, each with a true quality that is known in closed form.

    pytest tests/benchmarks/test_certificate_coverage.py -m benchmark -s
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from advisor.quality.escalation import llm_right_given
from advisor.quality.threshold import Start, certify, fixed_grid

pytestmark = pytest.mark.benchmark

FloatArray = NDArray[np.float64]

DELTAS = (0.1, 0.05)
"""One minus the confidence of the certificates."""


@dataclass(frozen=True)
class World:
    """True rates of a deployment: binormal confidence, dependent errors."""

    slm: float
    llm: float
    auroc: float
    odds_ratio: float
    target: float

    @property
    def separation(self) -> float:
        return float(np.sqrt(2) * special.ndtri(self.auroc))

    def sample(self, rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        right, wrong = llm_right_given(self.slm, self.llm, self.odds_ratio)
        s = rng.random(n) < self.slm
        confidence = special.expit(1.5 * (rng.normal(size=n) + self.separation * s) - 0.5)
        large = rng.random(n) < np.where(s, right, wrong)
        return confidence, s.astype(float), large.astype(float)

    def truth(self, threshold: FloatArray) -> tuple[FloatArray, FloatArray]:
        """True quality and escalation rate at thresholds on the confidence."""
        right, wrong = llm_right_given(self.slm, self.llm, self.odds_ratio)
        inner = special.logit(np.clip(threshold, 0, 1))
        z = np.where(threshold > 1, np.inf, (inner + 0.5) / 1.5)
        low_wrong, low_right = special.ndtr(z), special.ndtr(z - self.separation)
        kept = self.slm * (1 - low_right)
        rescued = self.slm * low_right * right + (1 - self.slm) * low_wrong * wrong
        return kept + rescued, self.slm * low_right + (1 - self.slm) * low_wrong

    def oracle_escalation(self) -> float | None:
        """Least escalation that truly reaches the target; None where none does."""
        fine = special.expit(np.linspace(-14, 14, 8001))
        quality, escalated = self.truth(np.concatenate([[0.0], fine, [2.0]]))
        enough = quality >= self.target
        return float(escalated[enough].min()) if enough.any() else None


LARGE_BETTER = [
    World(0.806, 0.944, 0.84, 4, 0.92),
    World(0.88, 0.96, 0.84, 5, 0.94),
    World(0.70, 0.90, 0.75, 4, 0.87),
    World(0.90, 0.975, 0.88, 6, 0.955),
    World(0.85, 0.93, 0.80, 5, 0.93),
]
SMALL_BETTER = [
    World(0.965, 0.90, 0.80, 5, 0.95),
    World(0.945, 0.85, 0.80, 5, 0.93),
    World(0.9495, 0.75, 0.70, 2, 0.95),
    World(0.985, 0.93, 0.80, 5, 0.97),
    World(0.9195, 0.70, 0.85, 3, 0.92),
]
CLEARED = [
    World(target + 0.015, llm, 0.80, 5, target)
    for target, llm in itertools.product((0.90, 0.92, 0.95, 0.97), (0.80, 0.88, 0.985))
]


@dataclass
class Tally:
    """Counts over deployments."""

    delta: float
    deployments: int = 0
    certified: int = 0
    wrong: int = 0
    naive_wrong: int = 0
    excess: list[float] = field(default_factory=list)

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.delta,
            self.deployments + other.deployments,
            self.certified + other.certified,
            self.wrong + other.wrong,
            self.naive_wrong + other.naive_wrong,
            self.excess + other.excess,
        )

    def bound(self) -> float:
        """δ plus two standard errors."""
        return self.delta + 2 * float(np.sqrt(self.delta * (1 - self.delta) / self.deployments))

    def line(self, name: str) -> str:
        excess = f"{np.mean(self.excess):+.3f}" if self.excess else "   –  "
        return (
            f"{name:36} δ = {self.delta:4}, {self.deployments:5}: "
            f"certified {self.certified / self.deployments:.3f}, "
            f"wrong {self.wrong / self.deployments:.4f} (bound {self.bound():.4f}), "
            f"naive wrong {self.naive_wrong / self.deployments:.3f}, "
            f"escalation above oracle {excess}"
        )


def tally(
    worlds: list[World], n: int, start: Start, repeats: int, *, delta: float, seed: int = 0
) -> Tally:
    result = Tally(delta)
    rng = np.random.default_rng([seed, n])
    for world in worlds:
        oracle = world.oracle_escalation()
        for _ in range(repeats):
            columns = world.sample(rng, n)
            found = certify(*columns, target=world.target, confidence_level=1 - delta, start=start)
            result.deployments += 1
            if found.threshold is not None:
                quality, escalated = world.truth(np.array([found.threshold]))
                result.certified += 1
                result.wrong += bool(quality[0] < world.target)
                if oracle is not None:
                    result.excess.append(float(escalated[0]) - oracle)
            result.naive_wrong += naive_is_wrong(world, *columns)
    return result


def naive_is_wrong(world: World, c: FloatArray, s: FloatArray, large: FloatArray) -> bool:
    """Whether the least escalation that reaches the target on the rows themselves truly does."""
    grid = np.concatenate([[0.0], fixed_grid(c)])
    order = np.argsort(c)
    handed = np.searchsorted(c[order], grid)
    gained = np.concatenate([[0.0], np.cumsum((large - s)[order])])
    reached = np.flatnonzero((s.sum() + gained[handed]) / len(c) >= world.target)
    if len(reached) == 0:
        return False
    quality, _ = world.truth(grid[reached[:1]])
    return bool(quality[0] < world.target)


def settings() -> Iterator[tuple[str, list[World], Start]]:
    for start in ("llm", "both", "pilot"):
        yield "large model better", LARGE_BETTER, start
    for start in ("slm", "both", "pilot"):
        yield "small model better", SMALL_BETTER, start


@pytest.mark.parametrize("delta", DELTAS)
def test_certificates_are_wrong_no_more_often_than_they_say(delta: float) -> None:
    """5 worlds × 4 sizes × 100 repeats = 2,000 deployments for each start and better model."""
    print()
    for name, worlds, start in settings():
        everything = Tally(delta)
        for n in (200, 500, 1000, 2000):
            found = tally(worlds, n, start, repeats=100, delta=delta)
            print(found.line(f"{name}, {start}, n = {n}"))
            everything = everything.plus(found)
        print(everything.line(f"{name}, {start}, all sizes"))
        assert everything.deployments == 2000
        assert everything.wrong / everything.deployments <= everything.bound()


@pytest.mark.parametrize("delta", DELTAS)
def test_the_escalation_is_near_the_oracles(delta: float) -> None:
    """n = 2,000, the large model better: at most ten points above the oracle."""
    reachable = [world for world in LARGE_BETTER if world.target < world.llm - 0.01]
    print()
    for start in ("llm", "both"):
        found = tally(reachable, 2000, start, repeats=100, delta=delta, seed=1)
        print(found.line(f"large model better, {start}, n = 2000"))
        assert np.mean(found.excess) <= 0.10


@pytest.mark.parametrize("delta", DELTAS)
def test_a_small_model_that_clears_the_target_is_certified(delta: float) -> None:
    """A point and a half above the target, n = 2,000: certified in at least 90 % of the worlds.

    The one test of "accept all" is the most powerful there is of that claim alone and certifies in
    88 % at δ = 0.05; both ends and the pilot also use the large model where it is good.
    """
    print()
    alone = tally(CLEARED, 2000, "slm", repeats=200, delta=delta, seed=2)
    print(alone.line("small model clears, slm, n = 2000"))
    for start in ("both", "pilot"):
        found = tally(CLEARED, 2000, start, repeats=200, delta=delta, seed=2)
        print(found.line(f"small model clears, {start}, n = 2000"))
        assert found.certified / found.deployments >= 0.90


def test_a_million_rows() -> None:
    columns = LARGE_BETTER[0].sample(np.random.default_rng(0), 1_000_000)
    began = time.perf_counter()
    found = certify(*columns, target=0.92, confidence_level=0.95)
    print(f"\n1,000,000 rows: {time.perf_counter() - began:.2f} s, {found.reason}")
    assert found.certified
