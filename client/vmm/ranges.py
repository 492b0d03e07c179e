"""Who claims which numbers: ports, addresses, MSRs, CPUID leaves.

    ports = Ranges("port"); ports.add(range(0x3F8, 0x400), uart)
    ports.find(0x3FD)                   # Claim(start=0x3F8, stop=0x400, owner=uart)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_COUNTED = 4096
ELSEWHERE = -1


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """The numbers from start to before stop are owner's."""

    start: int
    stop: int
    owner: T


class Ranges(Generic[T]):
    """Claims that do not overlap. `unclaimed` counts accesses by number; beyond MOST_COUNTED of them as ELSEWHERE."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._claims: list[Claim[T]] = []
        self.unclaimed: Counter[int] = Counter()

    def add(self, numbers: range, owner: T) -> None:
        """Raises ValueError for an empty range, for steps, and for one that overlaps another."""
        if not numbers or numbers.step != 1:
            raise ValueError(f"{self.noun}s {numbers} are no range that can be claimed")
        for claim in self._claims:
            if numbers.start < claim.stop and claim.start < numbers.stop:
                raise ValueError(
                    f"{self.noun}s {numbers.start:#x} to {numbers.stop - 1:#x} overlap "
                    f"{claim.start:#x} to {claim.stop - 1:#x}, which {claim.owner!r} has claimed"
                )
        self._claims = sorted([*self._claims, Claim(numbers.start, numbers.stop, owner)], key=lambda one: one.start)

    def remove(self, start: int) -> None:
        """Ends the claim that begins there."""
        self._claims = [claim for claim in self._claims if claim.start != start]

    def find(self, number: int) -> Claim[T] | None:
        claims = self._claims
        place = bisect_right(claims, number, key=lambda claim: claim.start) - 1
        return claims[place] if place >= 0 and number < claims[place].stop else None

    def overlaps(self, numbers: range) -> bool:
        """Is one of them claimed?"""
        return any(numbers.start < claim.stop and claim.start < numbers.stop for claim in self._claims)

    def count(self, number: int) -> None:
        """Notes an access that nobody claims."""
        known = number in self.unclaimed or len(self.unclaimed) < MOST_COUNTED
        self.unclaimed[number if known else ELSEWHERE] += 1
