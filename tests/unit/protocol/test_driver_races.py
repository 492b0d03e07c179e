"""The driver against CPUs and threads that interfere: nothing is lost, nothing is told that has not happened."""

import random
import threading
from collections.abc import Callable
from functools import partial

import pytest

from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.protocol.commands import Cpu, Run, raise_request
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import CommandTimeout, CpuBusy
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import Slot
from tests.support.simulated_sidecar import SimulatedSidecar

WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)


def in_threads(*works: Callable[[], None]) -> None:
    """Runs all at once; the first exception of any of them is raised here."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def test_stop_racing_completion() -> None:
    """STOP at a random moment of a NONE command: it ends once, whoever wins, and the CPU goes on."""
    rounds = 400
    with SimulatedSidecar((5,)) as sidecar, PageDriver(sidecar) as driver:

        def work(number: int) -> None:
            cpu, dice = Cpu(driver, number), random.Random(number)
            for _ in range(rounds):
                run = cpu.start(SidecarCommand.NONE)
                for _ in range(dice.randrange(40)):
                    pass
                run.stop()
                run.wait()

        in_threads(*(partial(work, number) for number in (1, 2, 3, 4)))
        for number in (1, 2, 3, 4):
            assert sidecar.cpus[number].executed == list(range(1, rounds + 1))
            assert driver.status(number) == CpuStatus.IDLE


@pytest.mark.parametrize("eager", [False, True])
def test_no_end_is_told_before_the_start(eager: bool) -> None:
    """A thread scans all the time; a run is only told as finished when the CPU has executed it.

    An eager CPU may finish before the driver has published that the run is under way: its end must not get lost either.
    """
    rounds = 300
    with SimulatedSidecar((3,)) as sidecar, PageDriver(sidecar) as driver:
        started, told = {1: 0, 2: 0}, {1: 0, 2: 0}
        done = threading.Event()
        for number in (1, 2):
            sidecar.cpus[number].eager = eager

        def scan() -> None:
            while not done.is_set():
                for run in driver.finished(seconds=0.01):
                    told[run.cpu] += 1
                    assert len(sidecar.cpus[run.cpu].executed) == told[run.cpu] == started[run.cpu]

        def start() -> None:
            try:
                for _ in range(rounds):
                    for number in (1, 2):
                        while True:
                            try:
                                driver.start(number, prepare=partial(_count, started, number))
                                break
                            except CpuBusy:
                                done.wait(0.0001)
                while sum(told.values()) < 2 * rounds and not done.wait(0.001):
                    pass
            finally:
                done.set()

        timer = threading.Timer(50, done.set)
        timer.start()
        in_threads(scan, start)
        timer.cancel()
        assert told == started == {1: rounds, 2: rounds}


def _count(counts: dict[int, int], number: int) -> None:
    counts[number] += 1


def test_attention_during_a_start_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst moment: the CPU ends the command and the scan takes its attention before ASYNC is published."""
    move = Slot.move

    def slow_move(slot: Slot, old: CpuStatus, new: CpuStatus) -> int:
        found = move(slot, old, new)
        if new is CpuStatus.RUN:
            while slot.status.load() == CpuStatus.RUN or not slot.node.attention.load():
                pass
            assert driver.finished() == []
            assert slot.node.attention.load() == 0
        return found

    monkeypatch.setattr(Slot, "move", slow_move)
    with SimulatedSidecar((2,)) as sidecar, PageDriver(sidecar) as driver:
        sidecar.cpus[1].eager = True
        driver.start(1)
        assert driver.finished(seconds=5) == [Finished(1, CpuStatus.IDLE)]


def test_two_threads_never_have_one_cpu_at_once() -> None:
    with SimulatedSidecar((2,)) as sidecar, PageDriver(sidecar) as driver:
        inside = threading.Semaphore(1)
        busy = served = 0
        count = threading.Lock()

        def work() -> None:
            nonlocal busy, served

            def alone() -> None:
                assert inside.acquire(blocking=False)
                inside.release()

            for _ in range(300):
                try:
                    driver.run(1, prepare=alone)
                    with count:
                        served += 1
                except CpuBusy:
                    with count:
                        busy += 1

        in_threads(work, work, work)
        assert served + busy == 900
        assert len(sidecar.cpus[1].executed) == served > 0


def test_one_claim_of_many_succeeds() -> None:
    with SimulatedSidecar((2,)) as sidecar, PageDriver(sidecar) as driver:
        owners: list[object] = []
        together = threading.Barrier(8)

        def work() -> None:
            owner = object()
            together.wait(10)
            try:
                driver.claim(1, owner)
                owners.append(owner)
            except CpuBusy:
                return

        in_threads(*[work] * 8)
        assert len(owners) == 1
        driver.run(1, owner=owners[0])


def test_a_lost_cpu_disturbs_no_other() -> None:
    """One CPU spins into a time-out again and again while others serve commands."""
    with SimulatedSidecar((4,)) as sidecar, PageDriver(sidecar) as driver:
        over = threading.Event()

        def spin() -> None:
            cpu = Cpu(driver, 1)
            try:
                for _ in range(5):
                    with pytest.raises(CommandTimeout) as caught:
                        cpu.raise_fault(RaiseKind.SPIN, seconds=0.02)
                    assert caught.value.recovered
                    cpu.none()
            finally:
                over.set()

        def serve(number: int) -> None:
            cpu = Cpu(driver, number)
            while not over.is_set():
                cpu.none()

        in_threads(spin, lambda: serve(2), lambda: serve(3))
        assert driver.pages(1).diagnostic.boot.arrivals == 6
        assert {driver.pages(number).diagnostic.boot.arrivals for number in (2, 3)} == {1}


def test_stop_of_waiting_commands_from_many_threads() -> None:
    """Every thread may stop; one of them wins, the others learn that nothing runs, and the run ends once."""
    with SimulatedSidecar((2,)) as sidecar, PageDriver(sidecar) as driver:
        cpu = Cpu(driver, 1)
        won: list[bool] = []

        def stop(run: Run) -> None:
            won.append(run.stop())

        for _ in range(50):
            won.clear()
            run = cpu.start(SidecarCommand.RAISE, WAIT)
            in_threads(*[partial(stop, run)] * 3)
            assert won.count(True) == 1
            run.wait()
        assert len(sidecar.cpus[1].executed) == 50
