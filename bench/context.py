"""What a measurement gets to work with: sizes, time, progress, and the boots that others have already measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.bench.boots import Boots

SIZES = (2, 4, 8, 16, 32, 64, 128, 255)

Tell = Callable[[str], None]


class Budget:
    """Time for the whole run, shared out among what is measured; without a bound there is always enough."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._held = 0.0

    def left(self) -> float:
        """Seconds that may be spent now."""
        return float("inf") if self._end is None else self._end - time.monotonic() - self._held

    def hold(self, seconds: float) -> None:
        """Keeps so much for later measurements."""
        self._held = seconds

    def allows(self, seconds: float) -> bool:
        return self.left() >= seconds


@dataclass(slots=True)
class Context:
    """One run of `sidecar bench`. `plots` is where pictures go, None for nowhere; `full`: whatever time it takes.

    `left_out` collects what there was no time for, `known` what later measurements reckon with.
    """

    boots: Boots
    budget: Budget
    tell: Tell
    sizes: tuple[int, ...] = SIZES
    chosen: bool = False  # the sizes are the user's
    full: bool = False
    plots: Path | None = None
    left_out: list[str] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)

    def sizes_of(self, usual: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes for a measurement that has its own, unless the user chose."""
        return self.sizes if self.chosen else usual

    def leave_out(self, what: str) -> None:
        """There was no time for it: the document says so."""
        self.tell(f"no time left for {what}")
        self.left_out.append(what)

    def draw(self, name: str, picture: str) -> tuple[str, ...]:
        """Keeps a picture, if pictures are wanted; what to put into Group.pictures."""
        if self.plots is None:
            return ()
        (self.plots / name).write_text(picture)
        return (name,)
