"""Gaps by the number of their highest bit."""

import pytest

from sidecar.bench.noise import parse
from sidecar.layout.command import GAP_BINS


def test_time_in_long_gaps() -> None:
    sums, counts = [0] * GAP_BINS, [0] * GAP_BINS
    sums[3], counts[3] = 800, 100
    sums[7], counts[7] = 150, 1
    sums[5], counts[5] = 50, 1
    gaps = parse(" ".join(map(str, (1000, 150, *sums, *counts))))
    assert (gaps.ticks, gaps.longest) == (1000, 150)
    assert gaps.lost(5) == pytest.approx(0.2)
    assert gaps.lost(6) == pytest.approx(0.15)
    assert (gaps.often(5), gaps.often(8)) == (2, 0)


def test_something_else() -> None:
    with pytest.raises(ValueError, match="printed 3 numbers instead of 130"):
        parse("1 2 3")
