"""Two sets of measurements of the same thing: the ratio of their medians, and how sure it is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 4000
COVERED = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of two medians, with the interval that covers it in 95 of 100 such experiments."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}"

    @property
    def interval(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f} (95 %)"


def ratio(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 1) -> Ratio:
    """Median of ours to median of theirs; the interval by the bootstrap, the same for the same measurements.

    Ref: Efron and Tibshirani, An Introduction to the Bootstrap, 13.3 (percentile interval).
    """
    chance = random.Random(seed)

    def resampled(values: Sequence[float]) -> float:
        return statistics.median(chance.choices(values, k=len(values)))

    ratios = sorted(resampled(ours) / resampled(theirs) for _ in range(RESAMPLES))
    outside = round(RESAMPLES * (1 - COVERED) / 2)
    return Ratio(
        statistics.median(ours) / statistics.median(theirs), ratios[outside], ratios[RESAMPLES - 1 - outside]
    )
