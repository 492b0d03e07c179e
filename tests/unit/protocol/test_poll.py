"""The wait: how soon it ends, and that it ends."""

import time

import pytest

from sidecar.protocol.waiting import poll


def test_it_ends_as_soon_as_it_is_done() -> None:
    answers = iter([False] * 100 + [True])
    assert poll(lambda: next(answers), 10)


def test_it_ends_in_time() -> None:
    started = time.monotonic()
    assert not poll(lambda: False, 0.05)
    assert 0.05 <= time.monotonic() - started < 5


def test_a_dead_machine_ends_it() -> None:
    def check() -> None:
        raise ConnectionError("the machine is gone")

    with pytest.raises(ConnectionError):
        poll(lambda: False, 60, check)


def test_no_time_still_looks() -> None:
    assert poll(lambda: True, 0)
    assert not poll(lambda: False, 0)
