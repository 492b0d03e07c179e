"""Guests run on sidecar CPUs by the driver's calls alone, while their memory and their doorbells change."""

from sidecar.layout import CommandPage, SidecarCommand
from sidecar.layout.hv_messages import HvMessageType
from sidecar.layout.ioctl import GuestRights, Ioctl
from sidecar.layout.run import RunEnd
from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_driver import shown, unload, wait_settled
from tests.support.linux_vmm import Vmm, pins, privileged

PAGE = 4096
ROUNDS = 300
DATA = 0x1000
COUNT = bytes.fromhex("ff060010")  # inc word ptr [0x1000]
ONCE = COUNT + bytes.fromhex("f4 ebf9")  # hlt; jmp back to the start
FOR_EVER = COUNT + bytes.fromhex("ebfa")  # jmp back to the start
ADVANCE = int(CommandPage.run.advance_rip)
OUTPUT = bytes.fromhex("e680 f4 e681 f4")  # out 0x80, al; hlt; out 0x81, al; hlt


def test_a_guest_uses_the_memory_of_its_process(vmm: Vmm) -> None:
    vm, data = vmm.vm(), vmm.call("memory", 1)
    vmm.call("poke", data, 5)
    vmm.map_code(vm, ONCE)
    assert [vmm.map(vm, DATA, PAGE, data), vmm.create(1, vm)] == [0, 0]
    for expected in (6, 6):
        outcome = vmm.run_guest(1)
        assert outcome.message is not None
        assert (outcome.message.type, vmm.call("peek", data)) == (HvMessageType.X64_HALT, expected)
    assert vmm.ask(Ioctl.RESTART, 1) == 0  # from the reset vector again
    assert [vmm.run_guest(1).rip, vmm.call("peek", data)] == [0xFFF4, 7]


def test_memory_is_unmapped_while_the_guest_uses_it(driven: LinuxSession, vmm: Vmm) -> None:
    vm, data, other = vmm.vm(), vmm.call("memory", 1), vmm.call("memory", 1)
    vmm.map_code(vm, FOR_EVER)
    assert [vmm.map(vm, DATA, PAGE, data), vmm.create(1, vm)] == [0, 0]
    vmm.start_guest(1)
    vmm.wait_growth(data)
    assert vmm.unmap(vm, DATA, PAGE) == 0
    last = vmm.call("peek", data)
    vmm.wait_end(1)
    outcome = vmm.outcome(1)
    assert outcome.message is not None
    assert outcome.message.type == HvMessageType.UNMAPPED_GPA
    assert outcome.message.body.gpa == DATA
    told = privileged(driven, 1)
    assert told.seen_generation == told.guest_generation
    assert [vmm.call("peek", data), vmm.call("pinned_kib")] == [last, 4]
    assert vmm.map(vm, DATA, PAGE, other, GuestRights.READ) == 0
    vmm.start_guest(1)
    vmm.wait_end(1)
    outcome = vmm.outcome(1)
    assert outcome.message is not None
    assert outcome.message.type == HvMessageType.GPA_INTERCEPT
    assert [vmm.unmap(vm, DATA, PAGE), vmm.map(vm, DATA, PAGE, other)] == [0, 0]
    vmm.start_guest(1)
    vmm.wait_growth(other)
    vmm.stop(1)
    assert vmm.outcome(1).end == RunEnd.CANCELLED
    assert vmm.call("peek", data) == last


def test_memory_comes_while_the_guest_runs(vmm: Vmm) -> None:
    """Two CPUs with the same memory; only one of them uses what goes."""
    vm, data, more = vmm.vm(), vmm.call("memory", 1), vmm.call("memory", 4)
    vmm.claim(2)
    vmm.map_code(vm, FOR_EVER)
    assert [vmm.map(vm, DATA, PAGE, data), vmm.create(1, vm), vmm.create(2, vm)] == [0, 0, 0]
    for cpu in (1, 2):
        vmm.start_guest(cpu)
    vmm.wait_growth(data)
    for _ in range(8):
        assert [vmm.map(vm, 0x200000, 4 * PAGE, more), vmm.unmap(vm, 0x200000, 4 * PAGE)] == [0, 0]
    vmm.wait_growth(data)
    assert vmm.call("pinned_kib") == 8
    for cpu in (1, 2):
        vmm.stop(cpu)
        assert vmm.outcome(cpu).end == RunEnd.CANCELLED


def test_a_process_is_killed_whose_guests_run(driven: LinuxSession) -> None:
    before = pins(driven)
    with Vmm(driven) as vmm:
        vmm.claim(1, 2)
        vm, data = vmm.vm(), vmm.call("memory", 1)
        vmm.map_code(vm, FOR_EVER)
        assert [vmm.map(vm, DATA, PAGE, data), vmm.create(1, vm), vmm.create(2, vm)] == [0, 0, 0]
        for cpu in (1, 2):
            vmm.start_guest(cpu)
        vmm.wait_growth(data)
    with Vmm(driven) as vmm:
        vmm.claim(1, 2)
        assert [vmm.ask(Ioctl.RUN, cpu) for cpu in (1, 2)] == [0, 0]
        assert [shown(driven, cpu, "state") for cpu in (1, 2)] == ["available"] * 2
        assert pins(driven) == before


class TestDoorbells:
    def test_before_the_first_run_no_instruction_is_executed(self, vmm: Vmm) -> None:
        vm, data = vmm.vm(), vmm.call("memory", 1)
        vmm.map_code(vm, ONCE)
        assert [vmm.map(vm, DATA, PAGE, data), vmm.create(1, vm), vmm.ring(1, 1 << 63 | 2)] == [0, 0, 0]
        outcome = vmm.run_guest(1)
        assert (outcome.end, outcome.notifications, outcome.guest_entries) == (RunEnd.NOTIFIED, 1 << 63 | 2, 0)
        assert vmm.call("peek", data) == data
        assert vmm.run_guest(1).end == RunEnd.INTERCEPT

    def test_every_bit_arrives_once(self, driven: LinuxSession, vmm: Vmm) -> None:
        """Posted while a guest runs, ends its run, or is not running, by ioctl and by eventfd."""
        vm, data = vmm.vm(), vmm.call("memory", 1)
        vmm.map_code(vm, FOR_EVER)
        assert [vmm.map(vm, DATA, PAGE, data), vmm.create(1, vm)] == [0, 0]
        vmm.give(1, SidecarCommand.RUN_VP)
        event = vmm.call("eventfd")
        assert vmm.bind(1, event, 40) == 0
        result = vmm.call("ring_at_random", vmm.node, 1, event, 40, ROUNDS)
        assert result == {"ended without": 0, "lost": 0, "invented": 0}
        assert privileged(driven, 1).doorbell == 0
        vmm.start_guest(1)
        vmm.wait_growth(data)
        vmm.stop(1)
        assert (vmm.outcome(1).end, vmm.outcome(1).notifications) == (RunEnd.CANCELLED, 0)


def test_ports_of_the_machine_only_if_they_are_listed(bare: LinuxSession) -> None:
    """Port 0x80 is the diagnostic port, which swallows what is written to it."""
    bare.load_driver("io_ports=0x80")
    wait_settled(bare)
    try:
        with Vmm(bare) as vmm:
            vmm.claim(1)
            vm = vmm.vm()
            vmm.map_code(vm, OUTPUT)
            assert vmm.create(1, vm) == 0
            outcome = vmm.run_guest(1)
            assert outcome.message is not None
            assert (outcome.message.type, outcome.rip) == (HvMessageType.X64_HALT, 0xFFF2)
            vmm.store(1, ADVANCE, bytes([1]))
            outcome = vmm.run_guest(1)
            assert outcome.message is not None
            assert outcome.message.type == HvMessageType.X64_IO_PORT_INTERCEPT
            assert outcome.message.body.port == 0x81
    finally:
        unload(bare)
