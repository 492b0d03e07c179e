"""serial_log on its own: the lock goes from a dead holder to one of those who wait, and to nobody twice."""

import struct

from sidecar.builder import image
from sidecar.kernel.log import LOCK_POLLS
from sidecar.layout import PAGE_SIZE
from sidecar.layout.address_map import absolute_symbols
from sidecar.shim.console import Port
from tests.support.emulator import Emulator
from tests.unit.kernel.helpers import BASE, RAM

SELF, DEAD, OTHER = 1, 7, 9
"""As the lock names them. Linux number 0 is ours: vp_globals is zero."""
POLLS = 3
LINE = b"a line\n"
GLOBALS = BASE + absolute_symbols()["vp_globals"]
COMPARE_EXCHANGE, PAUSE = bytes.fromhex("f0440fb115"), bytes.fromhex("f390")


class Log:
    """The routine with fewer polls, and where it stands at its instructions."""

    def __init__(self, holder: int) -> None:
        self.kernel = Emulator(image.kernel(), base=BASE, memory=(RAM, range(GLOBALS, GLOBALS + PAGE_SIZE)))
        self.start = self.kernel.at("serial_log")
        self.code = self.kernel.read(self.start, 0x100)
        at = self.code.index(struct.pack("<I", LOCK_POLLS))
        self.kernel.write(self.start + at, POLLS, size=4)
        self.kernel.write(RAM.start, LINE)
        self.holder = holder

    @property
    def holder(self) -> int:
        return self.kernel.number("serial_lock", 4)

    @holder.setter
    def holder(self, holder: int) -> None:
        self.kernel.write("serial_lock", holder, size=4)

    @property
    def following(self) -> int:
        """The compare-exchange after the last poll."""
        return self.start + self.code.index(COMPARE_EXCHANGE, self.code.index(PAUSE))

    @property
    def poll(self) -> int:
        return self.start + self.code.index(PAUSE)

    def write(self) -> None:
        self.kernel.call("serial_log", rdi=Port.COM1, rsi=RAM.start, rcx=len(LINE))
        assert self.kernel.console == LINE.decode()


def test_a_free_lock_is_taken_and_given_back() -> None:
    log = Log(0)
    log.write()
    assert log.holder == 0


def test_a_dead_holder_is_followed() -> None:
    polls: list[int] = []
    log = Log(DEAD)
    log.kernel.before(log.poll, lambda: polls.append(log.holder))
    log.write()
    assert (polls, log.holder) == ([DEAD] * POLLS, 0)


def test_who_comes_too_late_to_follow_waits_for_who_did() -> None:
    polls: list[int] = []
    log = Log(DEAD)

    def another_follows() -> None:
        log.holder = OTHER

    def poll() -> None:
        assert log.kernel.console == ""
        polls.append(log.holder)
        if len(polls) == 2 * POLLS - 1:
            log.holder = 0

    log.kernel.before(log.following, another_follows)
    log.kernel.before(log.poll, poll)
    log.write()
    assert (polls, log.holder) == ([DEAD] * POLLS + [OTHER] * (POLLS - 1), 0)


def test_polls_are_counted_for_one_holder() -> None:
    polls: list[int] = []
    log = Log(DEAD)

    def poll() -> None:
        polls.append(log.holder)
        log.holder = OTHER + len(polls) if len(polls) < 5 * POLLS else 0

    log.kernel.before(log.poll, poll)
    log.write()
    assert (len(polls), log.holder) == (5 * POLLS, 0)


def test_who_was_taken_for_dead_leaves_the_lock_to_its_follower() -> None:
    log = Log(0)

    def follow() -> None:
        assert log.holder == SELF
        log.holder = OTHER

    log.kernel.before(log.kernel.at("serial_write"), follow)
    log.write()
    assert log.holder == OTHER
