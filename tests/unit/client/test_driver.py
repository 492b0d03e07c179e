"""Commanding through device files, against a simulated driver: claims, errors in words, runs and who waits for them."""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.client import AbiMismatch, CommandTimeout, CpuAway, CpuBusy, CpuFaulted, NothingRuns, SidecarCommandError
from sidecar.client.driver import DriverAttachment
from sidecar.client.errors import NoDriver
from sidecar.client.sidecar import Sidecar
from sidecar.layout import CommandPage, CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.commands import raise_request
from sidecar.protocol.errors import ProtocolError
from tests.support.guest import Guest
from tests.support.simulated_cpu import UNKNOWN_COMMAND
from tests.support.simulated_sidecar import SimulatedSidecar

WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)
SPIN = raise_request(RaiseKind.SPIN)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with SimulatedSidecar((4, 3)) as simulated:
        yield Guest(simulated, tmp_path)


@pytest.fixture
def sidecar(guest: Guest) -> Iterator[Sidecar]:
    with guest.with_driver() as opened:
        yield opened


# --- claims ---


def test_a_command_claims_for_itself(guest: Guest, sidecar: Sidecar) -> None:
    sidecar.cpu(1).none()
    assert guest.kernel.calls == [(Ioctl.CLAIM, 1), (Ioctl.RUN, 1), (Ioctl.RELEASE, 1)]


def test_in_a_claim_a_command_is_one_call(guest: Guest, sidecar: Sidecar) -> None:
    cpu = sidecar.cpu("1:2")
    with cpu.claim():
        guest.kernel.calls.clear()
        cpu.none()
        cpu.none()
        assert guest.kernel.calls == [(Ioctl.RUN, 6)] * 2
    assert guest.kernel.calls[2:] == [(Ioctl.RELEASE, 6)]


def test_a_page_that_was_cleared_is_filled_once_more(guest: Guest, sidecar: Sidecar) -> None:
    """Linux has had the claimed CPU in between; what stood in its page then is not run."""
    cpu = sidecar.cpu(1)
    with cpu.claim():
        guest.kernel.calls.clear()
        for seconds in (60, 1):  # by RUN and by START
            guest.kernel.returned.add(1)
            with pytest.raises(SidecarCommandError):
                cpu.execute(0x63, seconds=seconds)
        assert [what for what, _ in guest.kernel.calls] == [Ioctl.RUN] * 2 + [Ioctl.START] * 2
        guest.kernel.returned.add(1)
        with pytest.raises(CpuAway, match="was Linux's in between: its command page was cleared"):
            sidecar.attachment.runner.run(1, owner=cpu)
        cpu.none()


def test_two_files_cannot_hold_one_cpu(guest: Guest, sidecar: Sidecar) -> None:
    with guest.with_driver() as other, sidecar.cpu(1).claim():
        for use in (other.cpu(1).none, other.cpu(1).claim, other.cpu(1).restart):
            with pytest.raises(CpuBusy, match=r"CPU 1 .* is claimed by another open file, or a command is running"):
                use()
        other.cpu(2).none()


def test_claims_do_not_nest(sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    with cpu.claim(), pytest.raises(CpuBusy, match="is already claimed"):
        cpu.claim()
    with pytest.raises(CpuBusy, match="is not claimed by who releases it"):
        cpu.release()


def test_a_claim_stays_while_a_command_runs(sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    cpu.claim()
    run = cpu.start(SidecarCommand.RAISE, WAIT)
    with pytest.raises(CpuBusy):
        cpu.release()
    run.stop()
    run.wait()
    cpu.release()


def test_closing_ends_claims(guest: Guest, sidecar: Sidecar) -> None:
    with guest.with_driver() as other:
        other.cpu(1).claim()
        other.cpu(2).claim()
        other.cpu(2).start(SidecarCommand.RAISE, SPIN)
    sidecar.cpu(1).none()
    sidecar.cpu(2).none()


def test_a_base_cpu_is_linuxs(sidecar: Sidecar) -> None:
    with pytest.raises(CpuAway, match=r"CPU 0 .* is not the sidecar's: Linux runs it, or it was removed"):
        sidecar.cpu(0).none()


# --- what goes wrong ---


def test_the_sidecars_sentence(sidecar: Sidecar) -> None:
    with pytest.raises(SidecarCommandError) as caught:
        sidecar.cpu(1).execute(0x63)
    assert caught.value.sentence == UNKNOWN_COMMAND


@pytest.mark.parametrize("seconds", [10.0, 3.0])
def test_a_fault_comes_with_its_record(sidecar: Sidecar, seconds: float) -> None:
    """By RUN, and by START and a wait."""
    cpu = sidecar.cpu(1)
    with pytest.raises(CpuFaulted, match=r"CPU 1 .* faulted: #PF .* cr2 0x1234") as caught:
        cpu.raise_fault(RaiseKind.PAGE_FAULT, 0x1234, seconds=seconds)
    assert caught.value.fault == cpu.fault()
    assert cpu.state == "faulted"
    with pytest.raises(CpuFaulted):
        cpu.none()
    cpu.restart()
    cpu.none()


def test_a_time_out_of_the_drivers_own(guest: Guest, sidecar: Sidecar) -> None:
    guest.kernel.run_seconds = 0.05
    with pytest.raises(CommandTimeout, match=r"CPU 1 .* did not finish RAISE within .* it was restarted$") as caught:
        sidecar.cpu(1).raise_fault(RaiseKind.SPIN)
    assert caught.value.recovered
    sidecar.cpu(1).none()


def test_a_time_out_of_the_callers(sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    with pytest.raises(CommandTimeout, match=r"within 0\.05 s, its status was RUN; it was restarted$") as caught:
        cpu.raise_fault(RaiseKind.SPIN, seconds=0.05)
    assert (caught.value.status, caught.value.recovered) == (CpuStatus.RUN, True)
    cpu.none()


def test_another_abi_on_the_command_page(guest: Guest, sidecar: Sidecar) -> None:
    page = guest.kernel.driver.command_memory(1)
    page[int(CommandPage.abi_hash)] ^= 1
    with pytest.raises(AbiMismatch, match=r"the command page of CPU 1 .* hash 0x.*; these tools have version 1, hash"):
        sidecar.cpu(1).none()
    page[int(CommandPage.abi_hash)] ^= 1
    sidecar.cpu(1).none()


def test_a_driver_whose_nodes_are_others(guest: Guest) -> None:
    found = guest.linux.discover()
    files = [guest.kernel.open(1), guest.kernel.open(0)]
    files[0].number = 0
    with pytest.raises(ProtocolError, match="the driver's node 0: base_cpu is 0x4, expected 0x0"):
        DriverAttachment(found, files, guest.kernel, guest.linux)


def test_without_a_driver_the_remedy_is_named(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(NoDriver, match=r"the sidecar's driver is not there: .*sidecar0 cannot be opened .*modprobe"):
        DriverAttachment.open(guest.linux, tmp_path)


def test_a_wait_that_is_interrupted_ends_the_command(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that obeys STOP, and one that does not."""
    monkeypatch.setattr("sidecar.client.device_runner.STOP_SECONDS", 0.2)
    cpu = sidecar.cpu(1)
    for kind in (RaiseKind.WAIT_FOR_STOP, RaiseKind.SPIN):
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            cpu.raise_fault(kind, seconds=3.0)
        cpu.none()


# --- runs ---


def test_start_stop_wait(sidecar: Sidecar) -> None:
    run = sidecar.cpu(1).start(SidecarCommand.RAISE, WAIT)
    with pytest.raises(CpuBusy, match="executes a command of another thread, or one that was not waited for"):
        sidecar.cpu(1).none()
    assert run.stop()
    run.wait()
    assert not run.stop()
    with pytest.raises(NothingRuns, match="this run of RAISE was waited for already"):
        run.wait()


def test_threads_wait_on_one_file(guest: Guest, sidecar: Sidecar) -> None:
    """Each gets its own CPU's end, whoever has read it from the file."""
    rounds = 60
    failures: list[BaseException] = []

    def work(number: int) -> None:
        dice, cpu = random.Random(number), sidecar.cpu(number)
        try:
            for _ in range(rounds):
                run = cpu.start(SidecarCommand.RAISE, WAIT)
                time.sleep(dice.random() * 0.002)
                run.stop()
                run.wait(seconds=20)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert [len(guest.sidecar.cpus[number].executed) for number in (1, 2, 3, 5, 6)] == [rounds] * 5


def test_a_thread_is_told_what_an_event_loop_has_read(sidecar: Sidecar) -> None:
    """Both wait on one file: the loop reads it, and the thread that polls it must not sleep on."""
    slow = sidecar.cpu(1).start(SidecarCommand.RAISE, WAIT)
    over: list[float] = []

    def wait() -> None:
        slow.wait(seconds=30)
        over.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()

    async def use() -> None:
        other = sidecar.async_cpu(2)
        for _ in range(50):
            await other.none()
        slow.stop()
        for _ in range(50):
            await other.none()

    asyncio.run(use())
    thread.join(5)
    assert over
