"""Somebody who writes into a page while a CPU works with it, at the full speed of a host core.

The patterns lie in a memory file; one read scatters all of them onto the same bytes, without the interpreter's lock.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

MOST_PATTERNS = 1024
"""IOV_MAX. Ref: readv(2)."""


@contextmanager
def scribbled(view: memoryview, patterns: Sequence[bytes]) -> Iterator[None]:
    """Within the block, every pattern in turn is written over `view`, again and again. All have the view's length."""
    if not patterns or len(patterns) > MOST_PATTERNS or any(len(pattern) != len(view) for pattern in patterns):
        raise ValueError(f"expected 1 to {MOST_PATTERNS} patterns of {len(view)} bytes")
    file, over = os.memfd_create("patterns"), threading.Event()
    os.write(file, b"".join(patterns))
    views = [view] * len(patterns)

    def scribble() -> None:
        while not over.is_set():
            os.preadv(file, views, 0)

    writer = threading.Thread(target=scribble, name="scribbler")
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
        os.close(file)
