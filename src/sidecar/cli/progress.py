"""Telling on stderr what takes its time."""

import sys

PROGRESS_SECONDS = 2.0
REPEAT_SECONDS = 20


def tell(line: str) -> None:
    """One step that takes a while."""
    print(f"sidecar: {line}", file=sys.stderr, flush=True)


class Progress:
    """How long something has been waited for: on a terminal once a second, else now and then."""

    def __init__(self, what: str) -> None:
        self._what, self._told = what, 0

    def __call__(self, seconds: float) -> None:
        if seconds < PROGRESS_SECONDS or int(seconds) <= self._told:
            return
        text = f"sidecar: waiting for {self._what}, {int(seconds)} s"
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif not self._told or seconds >= self._told + REPEAT_SECONDS:
            print(text, file=sys.stderr, flush=True)
        else:
            return
        self._told = int(seconds)

    def end(self) -> None:
        if self._told and sys.stderr.isatty():
            print(file=sys.stderr)
