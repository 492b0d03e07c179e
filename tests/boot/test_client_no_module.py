"""The client in an unmodified guest, without the driver: /dev/mem, the stock msr module, and who keeps whom out."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.linux.agent_client import GuestCommand
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import allow_no_module, complaints, ctl, ctl_json, start_program
from tests.support.stock_linux import StockLinux

SMP = 4
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bare(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=SMP) as booted:
        yield booted


@pytest.fixture
def session(bare: LinuxSession) -> Iterator[LinuxSession]:
    """No driver is loaded, the msr module is."""
    allow_no_module(bare)
    yield bare
    assert complaints(bare) == []


def test_what_is_missing_is_said_with_the_remedy(bare: LinuxSession) -> None:
    """Runs first: nothing is loaded."""
    said = ctl(bare, "list")
    assert said.status == 2
    assert said.error == (
        "sidecarctl: the sidecar's driver is not loaded (modprobe sidecar), and without it Linux's module msr is not "
        "loaded (/sys/module/msr/parameters/allow_writes cannot be read): `modprobe msr allow_writes=on`\n"
    )
    bare.guest.run("modprobe msr").check()
    said = ctl(bare, "list", "--backing", "no-module")
    assert said.status == 2
    assert "module msr does not allow writes: `echo on > /sys/module/msr/parameters/allow_writes`" in said.error
    bare.guest.run("rmmod msr").check()
    said = ctl(bare, "list", "--backing", "driver")
    assert said.status == 2
    assert "the sidecar's driver is not there: /dev/sidecar0 cannot be opened" in said.error


def test_commands(session: LinuxSession) -> None:
    data = ctl_json(session, "list")
    assert data["backing"] == "no-module"
    assert [cpu["state"] for cpu in data["cpus"]] == ["linux", "idle", "idle", "idle"]
    answers = ctl_json(session, "ping", "--count", "3")["cpus"]
    assert [(one["linux_number"], one["answered"]) for one in answers] == [(1, True), (2, True), (3, True)]
    assert ctl_json(session, "regs", "0:2", "dr0=0x1234", "dr1")["registers"] == {
        "HvX64RegisterDr0": 0x1234, "HvX64RegisterDr1": 0,
    }
    assert ctl(session, "log", "2").out.splitlines()[1] == "sidecar: cpu 2: APIC id 2: arrival 1"


def test_a_fault(session: LinuxSession) -> None:
    said = ctl(session, "run", "2", "--command", "raise", "--kind", "page_fault", "--argument", "0x1234")
    assert said.status == 1
    assert "faulted: #PF (vector 14)" in said.error
    (entry,) = ctl_json(session, "faults")
    assert (entry["linux_number"], entry["cr2"], entry["state"]) == (2, 0x1234, "faulted")
    assert ctl_json(session, "restart", "2")["state"] == "idle"
    assert ctl(session, "ping").status == 0


def test_conversion_and_return(session: LinuxSession) -> None:
    for _ in range(2):
        assert ctl_json(session, "convert", "3")["state"] == "linux"
        assert session.online_cpus() == {0, 3}
        assert session.guest.run("taskset -c 3 cat /proc/self/stat").check().stdout.split()[38] == "3"
        assert ctl_json(session, "return", "3")["state"] == "idle"
        assert session.online_cpus() == {0}
    assert ctl(session, "ping").status == 0


def test_linux_takes_a_cpu_without_asking(session: LinuxSession) -> None:
    session.guest.run("echo 1 > /sys/devices/system/cpu/cpu3/online").check()
    said = ctl(session, "ping", "3")
    assert said.status == 1
    assert "CPU 3 (APIC id 0x3, node 0, index 3) is run by Linux" in said.out
    assert session.guest.run("taskset -c 3 true").status == 0
    assert ctl_json(session, "return", "3")["state"] == "idle"
    assert ctl(session, "ping", "3").status == 0


def test_one_client_at_a_time(session: LinuxSession) -> None:
    """The other one may look, waits a while for its turn, and gets it when the first one is killed."""
    holder = held(session, "spin")
    assert ctl_json(session, "list")["cpus"][1]["state"] == "run"
    said = ctl(session, "ping", "2")
    assert (said.status, said.error) == (
        2, "sidecarctl: another client commands the sidecar without a driver, still after 5 s; only one can at a time\n"
    )
    waiting = session.guest.start(["sidecarctl", "ping"])
    time.sleep(2)
    end(holder)
    assert waiting.wait(60).status == 0
    assert "arrival 2" in ctl(session, "log", "1").out.splitlines()[-1]


def test_the_driver_takes_over(session: LinuxSession) -> None:
    """A client without a driver ends by a sentence or, if it was reading the pages at that moment, by SIGBUS."""
    client = held(session, "loop")
    session.load_driver()
    ended = client.wait(30)
    assert ended.status in (0, -signal.SIGBUS)
    if ended.status == 0:
        assert ended.stdout.endswith("was loaded meanwhile: this client must not touch its CPUs\n")
    assert ctl_json(session, "list")["backing"] == "driver"
    assert ctl(session, "ping").status == 0
    session.guest.run("rmmod sidecar").check()
    assert ctl_json(session, "list")["backing"] == "no-module"
    assert ctl(session, "ping").status == 0


def test_the_driver_finds_what_a_client_has_left_running(session: LinuxSession) -> None:
    end(held(session, "spin"))
    session.load_driver()
    assert ctl(session, "ping").status == 0
    session.guest.run("rmmod sidecar").check()


def test_xapic_mode_is_refused_with_the_remedy(stock_linux: StockLinux, run_directory: Path) -> None:
    with stock_linux.guest(run_directory, smp=2, append="nox2apic") as session:
        allow_no_module(session)
        said = ctl(session, "ping")
        assert said.status == 2
        assert "xAPIC mode" in said.error
        assert "intremap=on,eim=on" in said.error


def held(session: LinuxSession, how: str) -> GuestCommand:
    """A client that has the machine."""
    client = start_program(session, "no_module_hold.py", how)
    deadline = time.monotonic() + 30
    while b"held" not in client.stdout:
        assert time.monotonic() < deadline, client.stderr
        time.sleep(0.05)
    return client


def end(client: GuestCommand) -> None:
    client.kill()
    client.wait(20)
