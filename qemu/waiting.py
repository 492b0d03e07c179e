"""Every wait is bounded, and says what it waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

Progress = Callable[[float], None]
"""Takes the seconds waited so far, now and then."""


class WaitedInVain(TimeoutError):
    """Something did not happen in time; the message says what and how long."""

    def __init__(self, seconds: float, what: str) -> None:
        super().__init__(f"waited {seconds:g} s for {what}")


def unwatched(seconds: float) -> None:
    """Progress that nobody wants to see."""


def wait_until(condition: Callable[[], T | None], *, seconds: float, what: str, interval: float = 0.002) -> T:
    """The first true result of `condition`, asked every `interval` seconds. Raises WaitedInVain."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise WaitedInVain(seconds, what)
        time.sleep(interval)
