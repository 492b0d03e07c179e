"""What the driver refuses when it is loaded, each with its sentence, and what it finds and mends."""

import struct

import pytest

from sidecar.layout import ControlPage, CpuMapEntry, CpuStatus, PrivilegedPage, abi_hash
from sidecar.layout.acpi import AcpiHeader, Sdcr, SdcrNode
from sidecar.qemu.linux_session import LinuxSession
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import ctl
from tests.support.linux_driver import (
    case,
    damaged,
    damaged_table,
    found,
    refusal,
    set_status,
    shown,
    states,
    status,
    switch,
    unload,
    used,
    wait_settled,
)
from tests.support.linux_vmm import privileged, privileged_pa
from tests.support.shared_linux import AS_BOOTED, OURS

OTHER_HASH = struct.pack("<Q", abi_hash() ^ 1)


def test_another_abi_is_refused_with_both_hashes(bare: LinuxSession) -> None:
    hashes = f"hash {abi_hash() ^ 1:#x}; this driver has version 1, hash {abi_hash():#x}"
    with damaged_table(bare, int(Sdcr.abi_hash), OTHER_HASH):
        assert f"sidecar: the SDCR table has ABI version 1, {hashes}" in refusal(bare)
    control = found(bare).nodes[0].control_pa
    with damaged(bare, control + int(ControlPage.abi_hash), OTHER_HASH):
        assert f"sidecar: node 0: its control page has ABI version 1, {hashes}" in refusal(bare)


CPU_3 = Sdcr.SIZE + SdcrNode.SIZE + 3 * CpuMapEntry.SIZE

WRONG = (
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
)  # fmt: skip


def test_a_table_that_is_wrong_is_refused(bare: LinuxSession) -> None:
    for offset, data, sentence in WRONG:
        with damaged_table(bare, offset, data):
            assert sentence in refusal(bare)


def test_a_control_page_of_another_node_is_refused(bare: LinuxSession) -> None:
    control = found(bare).nodes[0].control_pa
    with damaged(bare, control + int(ControlPage.index), b"\x05"):
        assert "node 0: its control page is of node 5 with CPUs 0 to 7 and request vector 0x20" in refusal(bare)


def test_every_status_that_somebody_may_have_left(bare: LinuxSession) -> None:
    """Restarted: in a command, being removed, removed. Kept for its owner: faulted. Lost: no status at all."""
    left = {
        1: CpuStatus.RUN, 2: CpuStatus.STOP, 3: CpuStatus.REMOVE, 4: CpuStatus.REMOVED, 5: CpuStatus.FAULTED, 6: 0x77,
    }  # fmt: skip
    log = KernelLog(bare)
    for cpu, value in left.items():
        set_status(bare, cpu, value)
    looking = bare.machine.ram.view(privileged_pa(bare, 7), PrivilegedPage.SIZE)
    struct.pack_into("<I", looking, int(PrivilegedPage.quiet), 1)  # by a RUN whose Linux is gone
    bare.load_driver()
    wait_settled(bare)
    assert states(bare) == AS_BOOTED | {6: "lost"}
    assert privileged(bare, 7).quiet == 0
    assert shown(bare, 5, "status") == "faulted"
    assert "index 6): cannot be restarted: its status is 0x77" in log.text
    set_status(bare, 6, CpuStatus.FAULTED)
    said = ctl(bare, "ping", "--json")
    assert [one["linux_number"] for one in said.data["cpus"] if not one["answered"]] == [5, 6]
    for name in ("5", "6"):
        assert ctl(bare, "restart", name).status == 0
    assert ctl(bare, "ping").status == 0
    unload(bare)


def test_the_memory_has_one_owner(bare: LinuxSession) -> None:
    assert "sidecar0" not in bare.guest.run("cat /proc/iomem").stdout
    page = found(bare).nodes[0].control_pa // 4096
    look = f"dd if=/dev/mem bs=4096 count=1 skip={page} 2>/dev/null | wc -c"
    assert bare.guest.run(look).stdout.strip() == "4096"
    bare.load_driver()
    assert bare.guest.run("grep -c ': sidecar0$' /proc/iomem").stdout.strip() == "1"
    assert bare.guest.run(look).stdout.strip() == "0"
    unload(bare)


def test_loaded_and_unloaded_many_times(bare: LinuxSession) -> None:
    bare.guest.run("for i in $(seq 10); do modprobe sidecar && rmmod sidecar || exit 1; done").check()
    assert bare.guest.run("grep -c sidecar /proc/interrupts").stdout.strip() == "0"
    bare.load_driver()
    assert states(bare) == AS_BOOTED


def test_unloaded_and_loaded_again(driven: LinuxSession) -> None:
    """What Linux has it keeps; what it took and let go of meanwhile comes back."""
    switch(driven, 1, True)
    unload(driven)
    assert driven.online_cpus() == {0, 1}
    switch(driven, 2, True)  # without the driver: INIT takes an idle CPU
    switch(driven, 3, True)
    assert used(driven, 1)
    assert used(driven, 2)
    switch(driven, 3, False)  # left in Linux's play_dead
    assert status(driven, 2) == CpuStatus.IDLE
    log = KernelLog(driven)
    driven.load_driver()
    assert status(driven, 2) == CpuStatus.REMOVED
    assert states(driven)[1] == states(driven)[2] == "removed"
    assert "index 3): does not answer: restarting it" in log.text
    wait_settled(driven)
    for cpu in (1, 2):
        switch(driven, cpu, False)
    assert states(driven) == AS_BOOTED
    assert ctl(driven, "ping").status == 0


def test_returned_at_loading(driven: LinuxSession) -> None:
    """A CPU that was Linux's when the driver went, and is nobody's when it comes."""
    switch(driven, 4, True)
    unload(driven)
    switch(driven, 4, False)
    assert status(driven, 4) == CpuStatus.REMOVED
    log = KernelLog(driven)
    driven.load_driver()
    wait_settled(driven)
    assert "index 4): is back with the sidecar" in log.text
    assert ctl(driven, "ping", "4").status == 0


def test_every_cpu_is_linuxs_and_returns_without_the_driver(bare: LinuxSession) -> None:
    """Linux's own switch works on all of them; the driver finds them wherever they are."""
    for cpu in OURS:
        switch(bare, cpu, True)
        assert used(bare, cpu)
    for cpu in OURS:
        if cpu != 7:
            switch(bare, cpu, False)
    bare.load_driver()
    wait_settled(bare)
    assert states(bare) == AS_BOOTED | {7: "removed"}
    switch(bare, 7, False)
    assert ctl(bare, "ping").status == 0


def test_the_driver_stays_while_a_file_is_open(driven: LinuxSession) -> None:
    assert driven.guest.run("exec 3<>/dev/sidecar0; rmmod sidecar").status != 0
    assert driven.guest.run("stat -c %a /dev/sidecar0").stdout.strip() == "600"


@pytest.mark.parametrize("text", ["9", "600001", "-1", "soon"])
def test_a_bound_that_is_none(driven: LinuxSession, text: str) -> None:
    parameter = "/sys/module/sidecar/parameters/timeout_ms"
    before = driven.guest.read(parameter)
    assert driven.guest.run(f"echo {text} > {parameter}").status != 0
    assert driven.guest.read(parameter) == before


def test_a_cpu_that_cannot_be_restarted_is_cleared_for_the_next(driven: LinuxSession) -> None:
    """Lost: nobody can use it, and nobody sees what another has left in its pages, until a restart succeeds."""
    set_status(driven, 5, 0x77)
    result = case(driven, "left_in_a_lost_cpu", 5)
    assert result == {"restart": "EIO", "state": "lost", "commands": ["EIO", "EIO", 0], "seen": [0, 0, "EIO"]}
    set_status(driven, 5, CpuStatus.FAULTED)
    assert ctl(driven, "restart", "5").status == 0
    assert ctl(driven, "ping", "5").status == 0
