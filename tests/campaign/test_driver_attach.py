"""What the driver refuses when it is loaded, each with its sentence, and what it finds and mends."""

import struct
from collections.abc import Iterator

import pytest

from sidecar.layout import ControlPage, CpuMapEntry, CpuStatus, abi_hash
from sidecar.layout.acpi import AcpiHeader, Sdcr, SdcrNode
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import (
    damaged,
    damaged_table,
    found,
    refusal,
    set_status,
    shown,
    states,
    unload,
    wait_settled,
)
from tests.support.stock_linux import StockLinux

SMP = 8
OTHER_HASH = struct.pack("<Q", abi_hash() ^ 1)


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=SMP) as booted:
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(session: LinuxSession) -> Iterator[None]:
    yield
    assert complaints(session) == []


def test_another_abi_is_refused_with_both_hashes(session: LinuxSession) -> None:
    hashes = f"hash {abi_hash() ^ 1:#x}; this driver has version 1, hash {abi_hash():#x}"
    with damaged_table(session, int(Sdcr.abi_hash), OTHER_HASH):
        assert f"the SDCR table has ABI version 1, {hashes}" in refusal(session)
    control = found(session).nodes[0].control_pa
    with damaged(session, control + int(ControlPage.abi_hash), OTHER_HASH):
        assert f"node 0: its control page has ABI version 1, {hashes}" in refusal(session)


CPU_3 = Sdcr.SIZE + SdcrNode.SIZE + 3 * CpuMapEntry.SIZE


@pytest.mark.parametrize(
    ("offset", "data", "sentence"),
    [
        (int(AcpiHeader.revision), b"\x02", "the SDCR table has revision 2, expected 1"),
        (int(Sdcr.node_count), b"\0\0\0\0", "the SDCR table has 0 node entries"),
        (int(Sdcr.cpu_count), b"\xff\x07\0\0", "the SDCR table has 2047 CPU entries at"),
        (int(Sdcr.node_offset), b"\x10\0\0\0", "the SDCR table has 1 node entries at 0x10"),
        (int(Sdcr.trampoline_pa), b"\0\0\x10\0", "the trampoline page is at 0x100000, where no SIPI reaches"),
        (Sdcr.SIZE + int(SdcrNode.cpu_count), b"\x09\0\0\0", "node 0 has CPUs 0 to 8, expected at most 7"),
        (Sdcr.SIZE + int(SdcrNode.shared_pa), b"\x01", "do not belong together"),
        (CPU_3 + int(CpuMapEntry.apic_id), b"\x33\0\0\0",
         "CPU 3 has APIC id 0x3 in Linux and 0x33 in the sidecar's CPU map: Linux numbers the CPUs differently"),
        (CPU_3 + int(CpuMapEntry.linux_number), b"\x04\0\0\0", "entry 3 of the CPU map is of CPU 4"),
        (CPU_3 + int(CpuMapEntry.node), b"\x01\0", "CPU 3 is of node 1 in the CPU map, expected node 0"),
    ],
)
def test_a_table_that_is_wrong_is_refused(session: LinuxSession, offset: int, data: bytes, sentence: str) -> None:
    with damaged_table(session, offset, data):
        assert f"sidecar: {sentence}" in refusal(session) or sentence in refusal(session)


def test_a_control_page_of_another_node_is_refused(session: LinuxSession) -> None:
    control = found(session).nodes[0].control_pa
    with damaged(session, control + int(ControlPage.index), b"\x05"):
        assert "node 0: its control page is of node 5 with CPUs 0 to 7 and request vector 0x20" in refusal(session)


def test_every_status_that_somebody_may_have_left(session: LinuxSession) -> None:
    """Restarted: in a command, being removed, removed. Kept for its owner: faulted. Lost: no status at all."""
    left = {
        1: CpuStatus.RUN, 2: CpuStatus.STOP, 3: CpuStatus.REMOVE, 4: CpuStatus.REMOVED, 5: CpuStatus.FAULTED, 6: 0x77,
    }
    for cpu, value in left.items():
        set_status(session, cpu, value)
    session.load_driver()
    wait_settled(session)
    assert states(session) == {0: "removed", **dict.fromkeys(range(1, 6), "available"), 6: "lost", 7: "available"}
    assert shown(session, 5, "status") == "faulted"
    assert "index 6): cannot be restarted: its status is 0x77" in session.guest.log()
    set_status(session, 6, CpuStatus.FAULTED)
    said = ctl(session, "ping", "--json")
    assert [one["linux_number"] for one in said.data["cpus"] if not one["answered"]] == [5, 6]
    for name in ("5", "6"):
        assert ctl(session, "restart", name).status == 0
    assert ctl(session, "ping").status == 0
    unload(session)


def test_the_memory_has_one_owner(session: LinuxSession) -> None:
    assert "sidecar0" not in session.guest.run("cat /proc/iomem").stdout
    session.load_driver()
    assert session.guest.run("grep -c ': sidecar0$' /proc/iomem").stdout.strip() == "1"
    assert session.guest.run(f"dd if=/dev/mem bs=4096 count=1 skip={found(session).nodes[0].control_pa // 4096}").status
    unload(session)


def test_loaded_and_unloaded_many_times(session: LinuxSession) -> None:
    session.guest.run("for i in $(seq 20); do modprobe sidecar && rmmod sidecar || exit 1; done").check()
    assert session.guest.run("grep -c sidecar /proc/interrupts").stdout.strip() == "0"
