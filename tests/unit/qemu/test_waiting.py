"""Waits end, and say what they waited for."""

import pytest

from sidecar.qemu.waiting import WaitedInVain, wait_until


def test_the_first_true_result() -> None:
    results = iter([None, 0, "", "there", "late"])
    assert wait_until(lambda: next(results), seconds=5, what="a result") == "there"


def test_in_vain() -> None:
    with pytest.raises(WaitedInVain, match=r"^waited 0.01 s for a miracle$") as caught:
        wait_until(lambda: None, seconds=0.01, what="a miracle")
    assert isinstance(caught.value, TimeoutError)


def test_no_time_is_one_look() -> None:
    assert wait_until(lambda: True, seconds=0, what="nothing")
