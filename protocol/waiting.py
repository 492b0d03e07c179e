"""How the host waits for a byte that a CPU of the machine changes.

Host and machine share the host's cores: a waiter that spins takes the core on which the answer would be computed, and
one that sleeps long adds its sleep to every command. So: give the core away a few times, then sleep in growing steps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

YIELDS = 100
SHORTEST_SLEEP = 20e-6
LONGEST_SLEEP = 2e-3
GROWTH = 1.3


def _nothing() -> None:
    """The check of a backing that cannot break."""


def poll(done: Callable[[], bool], seconds: float, check: Callable[[], None] = _nothing) -> bool:
    """True as soon as `done()` is, False if it was not within `seconds`.

    `check` is called now and then during a long wait, and may raise to end it: a machine that died answers nothing.
    """
    for _ in range(YIELDS):
        if done():
            return True
        os.sched_yield()
    deadline = time.monotonic() + seconds
    pause = SHORTEST_SLEEP
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            check()
            return done()
        time.sleep(min(pause, left))
        if pause < LONGEST_SLEEP:
            pause *= GROWTH
        else:
            check()
    return True
