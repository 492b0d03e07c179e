"""Commanding without a driver, against a simulated sidecar: who is kept out, and what Linux has is left alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.client import AlreadyAttached, CpuAway, CpuBusy, CpuFaulted, DriverAppeared, LinuxRefused
from sidecar.client.dev_mem import DevMem
from sidecar.client.errors import NoDriver, NoSidecar
from sidecar.client.linux import Linux
from sidecar.client.lock import MachineLock
from sidecar.client.msr import MsrFile
from sidecar.client.no_module import NoModuleAttachment
from sidecar.client.sidecar import Sidecar
from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.x86 import ApicBase, Icr, Msr
from sidecar.protocol.commands import raise_request
from sidecar.protocol.machine import Node
from tests.support.guest import Guest
from tests.support.simulated_sidecar import SimulatedSidecar


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with SimulatedSidecar((4, 2)) as simulated:
        yield Guest(simulated, tmp_path)


@pytest.fixture
def sidecar(guest: Guest) -> Iterator[Sidecar]:
    with guest.without_module() as opened:
        yield opened


def test_commands(guest: Guest, sidecar: Sidecar) -> None:
    cpu = sidecar.cpu("0:2")
    cpu.none()
    cpu.set_registers({"HvX64RegisterDr0": 7})
    assert cpu.get_registers(["HvX64RegisterDr0"]) == {"HvX64RegisterDr0": 7}
    assert guest.sidecar.kinds_sent(2) == [Icr.FIXED] * 3
    assert sidecar.cpu(2) is sidecar.cpu("apic:0x102") is cpu
    assert repr(cpu) == "<CPU 2 (APIC id 0x102, node 0, index 2), idle>"


def test_a_base_cpu_is_linuxs(sidecar: Sidecar) -> None:
    with pytest.raises(CpuAway, match=r"^CPU 4 .* is run by Linux$"):
        sidecar.cpu(4).none()
    with pytest.raises(CpuAway, match="is the first of its node: Linux keeps it"):
        sidecar.cpu(4).give_back()


def test_looking_takes_nothing(guest: Guest, sidecar: Sidecar) -> None:
    """Two clients may look, one may command."""
    sidecar.cpu(1).none()
    with guest.without_module() as other:
        assert [cpu.state for cpu in other.cpus] == ["linux", "idle", "idle", "idle", "linux", "idle"]
        assert other.cpu(1).boot_record()["arrivals"] == 1
        assert other.cpu(1).fault_record() == {"count": 0}
        assert other.cpu(1).log()["lines"] == []


def test_one_client_commands_at_a_time(guest: Guest, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MachineLock.take, "__kwdefaults__", {"seconds": 0.05})
    sidecar.cpu(1).none()
    with guest.without_module() as other:
        with pytest.raises(AlreadyAttached, match=r"still after 0\.05 s; only one can at a time"):
            other.cpu(2).none()
        sidecar.close()
        other.cpu(2).none()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.touch()
    text = f"""
import os, time
from pathlib import Path
from sidecar.client.lock import MachineLock
MachineLock(Path({str(path)!r})).take()
print("taken", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        lock = MachineLock(path)
        with pytest.raises(AlreadyAttached):
            lock.take(seconds=0)
        holder.kill()
        lock.take(seconds=10)
        assert lock.held


def test_a_killed_clients_run_is_ended_by_a_restart(guest: Guest, sidecar: Sidecar) -> None:
    sidecar.cpu(1).start(SidecarCommand.RAISE, raise_request(RaiseKind.SPIN))
    sidecar.close()
    with guest.without_module() as other:
        assert other.cpu(1).status == CpuStatus.RUN
        other.cpu(1).none()
        assert guest.sidecar.kinds_sent(1) == [Icr.FIXED, Icr.INIT, Icr.STARTUP, Icr.FIXED]


def test_what_another_client_did_is_seen_at_the_first_command(guest: Guest, sidecar: Sidecar) -> None:
    """Opened before, used after: what is known from the time of opening does not count."""
    with guest.without_module() as other:
        other.cpu(1).convert()
    with pytest.raises(CpuAway):
        sidecar.cpu(1).none()
    sidecar.cpu(1).give_back()
    sidecar.cpu(1).none()


def test_conversion_and_return(guest: Guest, sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    cpu.convert()
    assert (cpu.state, cpu.status) == ("linux", CpuStatus.REMOVED)
    assert guest.linux.is_online(1)
    with pytest.raises(CpuAway, match=r"CPU 1 .* is run by Linux"):
        cpu.none()
    cpu.give_back()
    assert (cpu.state, cpu.status) == ("idle", CpuStatus.IDLE)
    assert not guest.linux.is_online(1)
    assert guest.sidecar.kinds_sent(1) == [Icr.FIXED, Icr.INIT, Icr.STARTUP]
    cpu.none()
    with pytest.raises(CpuBusy, match="is not removed, it is available"):
        cpu.give_back()


def test_a_cpu_that_linux_refuses_goes_back(
    guest: Guest, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LinuxRefused("no")

    monkeypatch.setattr(guest.linux, "set_online", refuse)
    with pytest.raises(LinuxRefused):
        sidecar.cpu(1).convert()
    sidecar.cpu(1).none()


def test_a_cpu_that_linux_took_without_asking_gets_no_interrupt(guest: Guest, sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    cpu.none()
    guest.set_online(1, True)
    sent = len(guest.sidecar.sent)
    for use in (cpu.none, cpu.restart, cpu.convert, cpu.claim):
        with pytest.raises(CpuAway, match=r"CPU 1 .* is run by Linux|CPU 1 .* is not the sidecar's"):
            use()
    with pytest.raises(CpuAway, match="CPU 1 is run by Linux"):
        guest.backing().send(0x101 << 32 | Icr.INIT)
    assert len(guest.sidecar.sent) == sent
    cpu.give_back()
    cpu.none()


def test_a_driver_that_appears_ends_the_client(guest: Guest, sidecar: Sidecar) -> None:
    sidecar.cpu(1).none()
    guest.load_driver()
    sent = len(guest.sidecar.sent)
    with pytest.raises(DriverAppeared, match="was loaded meanwhile"):
        sidecar.cpu(1).none()
    assert sidecar.cpu(1).status == CpuStatus.IDLE
    assert len(guest.sidecar.sent) == sent


def test_a_loaded_driver_is_left_alone(guest: Guest) -> None:
    guest.load_driver()
    with pytest.raises(AlreadyAttached, match="driver is loaded and has the machine: use it, or unload it first"):
        NoModuleAttachment.open(guest.linux)


def test_a_linux_without_a_sidecar(tmp_path: Path) -> None:
    with pytest.raises(NoSidecar, match=r"this Linux runs without a sidecar: there is no .*SDCR; boot it by"):
        Linux(tmp_path).discover()


def test_a_claim_keeps_other_objects_away(sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    with cpu.claim():
        cpu.none()
        with pytest.raises(CpuBusy):
            cpu.claim()
    with cpu.claim():
        cpu.none()


def test_a_fault_is_shown_and_ended_by_a_restart(sidecar: Sidecar) -> None:
    cpu = sidecar.cpu(1)
    with pytest.raises(CpuFaulted, match=r"#PF .* cr2 0x1234") as caught:
        cpu.raise_fault(RaiseKind.PAGE_FAULT, 0x1234)
    assert caught.value.fault == cpu.fault()
    assert cpu.fault_record()["exception"] == "#PF"
    assert cpu.state == "faulted"
    cpu.restart()
    cpu.none()


# --- the real files ---------------------------------------------------------------------------------------------------


def msr_module(sys: Path, allow_writes: str) -> None:
    folder = sys / "module" / "msr" / "parameters"
    folder.mkdir(parents=True)
    (folder / "allow_writes").write_text(allow_writes + "\n")


def test_the_msr_module_must_be_there_and_allow_writes(tmp_path: Path) -> None:
    with pytest.raises(NoDriver, match=r"module msr is not loaded .*: `modprobe msr allow_writes=on`$"):
        MsrFile(tmp_path)
    msr_module(tmp_path, "default")
    with pytest.raises(NoDriver, match=r"does not allow writes: `echo on > .*allow_writes`"):
        MsrFile(tmp_path)
    (tmp_path / "module" / "msr" / "parameters" / "allow_writes").write_text("on\n")
    with pytest.raises(NoDriver, match=r"cannot be opened \(No such file or directory\): run as root after"):
        MsrFile(tmp_path, tmp_path / "msr")


@pytest.mark.parametrize("x2apic", [False, True])
def test_xapic_mode_is_refused_with_the_remedy(tmp_path: Path, x2apic: bool) -> None:
    """A file in which the offset is the register's number, as the real one is."""
    msr_module(tmp_path, "on")
    path = tmp_path / "msr"
    value = ApicBase.EN | (ApicBase.EXTD if x2apic else 0)
    path.write_bytes(bytes(Msr.APIC_BASE) + value.to_bytes(8, "little"))
    msr = MsrFile(tmp_path, path)
    msr.write(Msr.X2APIC_ICR, 0x1_0000_0020)
    assert msr.read(Msr.X2APIC_ICR) == 0x1_0000_0020
    if x2apic:
        msr.require_x2apic()
    else:
        with pytest.raises(NoDriver, match=r"xAPIC mode.*intel-iommu,intremap=on,eim=on.*kernel-irqchip=split"):
            msr.require_x2apic()
    msr.close()


def test_node_memory_is_mapped_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mem"
    path.write_bytes(bytes(0x10000))
    node = Node(0, 0x4000, 0x5000, 0x7000, 0x3000, 0, 1, 0, 0)
    memory = DevMem([node], path)
    memory.view(0x5008, 4)[:] = b"here"
    assert path.read_bytes()[0x5008:0x500C] == b"here"
    with pytest.raises(LookupError, match=r"0x6ff8 to 0x7008 is in no node's memory"):
        memory.view(0x6FF8, 16)
    with pytest.raises(NoDriver, match=r"cannot be opened \(No such file or directory\): run as root"):
        DevMem([node], tmp_path / "none")
