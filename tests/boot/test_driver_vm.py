"""Guest memory as docs/driver.md has it: MAP, UNMAP, nested page tables; every page is unpinned, and not too early."""

import struct

from sidecar.layout import RaiseKind
from sidecar.layout.ioctl import GuestRights, Ioctl, VmIoctl, VpCreate, VpIoctl
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.kernel_log import KernelLog
from tests.support.linux_driver import PARAMETERS, shown
from tests.support.linux_vmm import ALL, SECONDS, Tables, Vmm, pins, privileged, set_privileged

PAGE = 4096
LARGE = 2 << 20
END = 1 << 48
HUGE_PAGES = "/proc/sys/vm/nr_hugepages"
R, W, X = GuestRights.READ, GuestRights.WRITE, GuestRights.EXECUTE


class TestMistakes:
    def test_map(self, vmm: Vmm) -> None:
        vm, address = vmm.vm(), vmm.call("memory", 4)
        wrong = {
            "size 0": (0, 0, address), "gpa": (0x800, PAGE, address), "size": (0, 0x1800, address),
            "address": (0, PAGE, address + 8), "beyond": (END, PAGE, address), "over": (END - PAGE, 2 * PAGE, address),
            "wraps": (0x2000, (1 << 64) - PAGE, address), "far": ((1 << 64) - PAGE, PAGE, address),
        }  # fmt: skip
        assert {why: vmm.map(vm, *arguments) for why, arguments in wrong.items()} == dict.fromkeys(wrong, "EINVAL")
        assert [vmm.map(vm, 0, PAGE, address, rights) for rights in (0, W, W | X, 8, R | 8)] == ["EINVAL"] * 5
        assert vmm.map(vm, 0, PAGE, address, reserved=1) == "EINVAL"

    def test_memory_that_is_not_there(self, vmm: Vmm) -> None:
        """Or not the caller's to write to, or no memory; and what was pinned before that was found is not any more."""
        vm, address = vmm.vm(), vmm.call("memory", 4)
        assert vmm.call("forget", address + 2 * PAGE, 1) == 0
        read_only = vmm.call("memory", 1, rights=1)
        device = vmm.call("page_address", vmm.node, 1)
        nowhere = [
            vmm.map(vm, 0, 4 * PAGE, address), vmm.map(vm, 0, PAGE, 0), vmm.map(vm, 0, PAGE, 1 << 47),
            vmm.map(vm, 0, PAGE, (1 << 64) - PAGE), vmm.map(vm, 0, END, address), vmm.map(vm, 0, PAGE, read_only),
            vmm.map(vm, 0, PAGE, device), *(vmm.ask(what, 0x1000, file=vm) for what in VmIoctl),
        ]  # fmt: skip
        assert nowhere == ["EFAULT"] * 9
        assert vmm.map(vm, 0, 2 * PAGE, address) == 0
        assert vmm.map(vm, 2 * PAGE, PAGE, read_only, R) == 0
        assert vmm.call("pinned_kib") == 12

    def test_ranges_that_meet(self, vmm: Vmm) -> None:
        vm, address = vmm.vm(), vmm.call("memory", 4)
        assert vmm.map(vm, 2 * PAGE, 2 * PAGE, address) == 0
        overlaps = [(2, 2), (1, 2), (3, 1), (3, 2), (0, 4), (0, 1 << 36)]
        assert [vmm.map(vm, gpa * PAGE, n * PAGE, address) for gpa, n in overlaps] == ["EEXIST"] * 6
        others = [(2, 1), (3, 1), (1, 3), (2, 3), (9, 1)]
        assert [vmm.unmap(vm, gpa * PAGE, n * PAGE) for gpa, n in others] == ["ENOENT"] * 5
        wrong = [(8, PAGE), (0, 0), (0, 8), (END, PAGE), (0, END + PAGE)]
        assert [vmm.unmap(vm, gpa, n) for gpa, n in wrong] == ["EINVAL"] * 5
        assert [vmm.map(vm, 0, 2 * PAGE, address), vmm.map(vm, 4 * PAGE, PAGE, address)] == [0, 0]
        assert [vmm.unmap(vm, 2 * PAGE, 2 * PAGE), vmm.unmap(vm, 2 * PAGE, 2 * PAGE)] == [0, "ENOENT"]
        assert vmm.map(vm, 3 * PAGE, PAGE, address) == 0
        assert vmm.map(vm, END - PAGE, PAGE, address) == 0

    def test_files(self, vmm: Vmm) -> None:
        vm, null, address = vmm.vm(), vmm.call("null"), vmm.call("memory", 1)
        assert vmm.ask(VpIoctl.VM_CREATE, 1) == "EINVAL"
        assert [vmm.create(1, 999), vmm.create(1, null), vmm.create(1, vmm.node)] == ["EBADF", "EINVAL", "EINVAL"]
        assert [vmm.ask(what, 0, file=vm) for what in (Ioctl.INFO, VpIoctl.VM_CREATE)] == ["ENOTTY"] * 2
        assert [vmm.ask(what, 0) for what in VmIoctl] == ["ENOTTY"] * 2
        argument = struct.pack("<3Q2I", 0, PAGE, address, ALL, 0).hex()
        assert vmm.call("tell_from_child", vm, int(VmIoctl.MAP), argument) == "EPERM"
        assert vmm.call("tell_from_child", vm, int(VmIoctl.UNMAP), "00" * 16) == "EPERM"
        vp = VpCreate.build(cpu=1, vm_fd=vm).hex()
        assert vmm.call("tell_from_child", vmm.node, int(VpIoctl.VP_CREATE), vp) == "EPERM"

    def test_more_than_the_limit_of_locked_memory(self, vmm: Vmm) -> None:
        vm, address = vmm.vm(), vmm.call("memory", 8)
        vmm.call("limit", 4 * PAGE)
        assert vmm.map(vm, 0, 8 * PAGE, address) == "ENOMEM"
        assert vmm.map(vm, 0, 3 * PAGE, address) == 0
        assert vmm.call("pinned_kib") == 12
        assert [vmm.map(vm, LARGE, n * PAGE, address) for n in (2, 1, 1)] == ["ENOMEM", 0, "EEXIST"]
        assert [vmm.map(vm, 2 * LARGE, PAGE, address), vmm.unmap(vm, LARGE, PAGE)] == ["ENOMEM", 0]
        assert vmm.map(vm, 2 * LARGE, PAGE, address) == 0


class TestTables:
    def test_what_is_mapped_is_what_the_process_has(self, driven: LinuxSession, vmm: Vmm) -> None:
        vm, address = vmm.vm(), vmm.call("memory", 1030, shared=True)
        assert vmm.create(1, vm) == 0
        tables = Tables(driven, 1)
        assert vmm.map(vm, 0x1FE000, 1026 * PAGE, address) == 0
        assert vmm.map(vm, END - 2 * PAGE, PAGE, address + 1026 * PAGE, R) == 0
        assert vmm.map(vm, END - PAGE, PAGE, address + 1027 * PAGE, R | X) == 0
        assert vmm.map(vm, 1 << 39, 2 * PAGE, address + 1028 * PAGE, R | W) == 0
        assert tables.look(0x1FD000) is None
        for page in (0, 1, 2, 511, 513, 514, 1024, 1025):
            assert tables.look(0x1FE000 + page * PAGE) == (address + page * PAGE, ALL, 1)
        assert tables.look(0x1FE000 + 1026 * PAGE) is None
        assert tables.look(END - 2 * PAGE) == (address + 1026 * PAGE, R, 1)
        assert tables.look(END - PAGE) == (address + 1027 * PAGE, R | X, 1)
        assert [tables.look((1 << 39) + page * PAGE) for page in (0, 1)] == [
            (address + 1028 * PAGE, R | W, 1), (address + 1029 * PAGE, R | W, 1)
        ]  # fmt: skip
        assert vmm.call("pinned_kib") == 4 * 1030
        assert vmm.unmap(vm, END - 2 * PAGE, PAGE) == 0
        assert [tables.look(END - 2 * PAGE), tables.look(END - PAGE)] == [None, (address + 1027 * PAGE, R | X, 1)]
        assert vmm.unmap(vm, 0x1FE000, 1026 * PAGE) == 0
        assert [tables.look(0x1FE000 + page * PAGE) for page in (0, 2, 514, 1025)] == [None] * 4
        assert vmm.call("pinned_kib") == 4 * 3

    def test_pages_in_a_row_are_one_large_one(self, driven: LinuxSession, vmm: Vmm) -> None:
        driven.guest.run(f"echo 2 > {HUGE_PAGES}").check()
        vm, address = vmm.vm(), vmm.call("memory", 1024, huge=True)
        driven.guest.run(f"echo 0 > {HUGE_PAGES}").check()  # given back when they are free
        assert vmm.create(1, vm) == 0
        assert vmm.map(vm, LARGE, 2 * LARGE, address) == 0
        tables = Tables(driven, 1)
        assert [tables.look(LARGE + page * PAGE) for page in (0, 5, 512)] == [
            (address + page * PAGE, ALL, 2) for page in (0, 5, 512)
        ]
        assert [vmm.unmap(vm, LARGE, 2 * LARGE), tables.look(LARGE), vmm.call("pinned_kib")] == [0, None, 0]
        assert vmm.map(vm, LARGE, PAGE, address) == 0
        assert vmm.map(vm, LARGE + PAGE, LARGE, address) == 0
        assert tables.look(LARGE + PAGE) == (address, ALL, 1)

    def test_what_the_process_does_to_its_mapping_later_changes_nothing(self, driven: LinuxSession, vmm: Vmm) -> None:
        """And memory that the guest may only read is the process's own page from the moment it is mapped."""
        vm, address = vmm.vm(), vmm.call("memory", 1)
        untouched = vmm.call("memory", 1, rights=1)
        zeroes = vmm.call("memory", 2, shared=False)
        assert vmm.create(1, vm) == 0
        assert [vmm.map(vm, 0, PAGE, address), vmm.map(vm, PAGE, PAGE, untouched, R)] == [0, 0]
        assert vmm.map(vm, LARGE, 2 * PAGE, zeroes, R | X) == 0
        vmm.call("poke", zeroes + PAGE, 0x1234)
        tables = Tables(driven, 1)
        assert tables.look(LARGE + PAGE) == (0x1234, R | X, 1)
        assert vmm.call("forget", address, 1) == 0
        assert tables.look(0) == (address, ALL, 1)
        assert tables.look(PAGE) == (0, R, 1)


class TestUnpinning:
    def test_either_file_is_closed_first(self, driven: LinuxSession, vmm: Vmm) -> None:
        address = vmm.call("memory", 16)
        before = pins(driven)
        for first in ("vm", "node"):
            node, vm = vmm.call("node"), vmm.vm()
            assert vmm.ask(Ioctl.CLAIM, 2, file=node) == 0
            assert vmm.tell(VpIoctl.VP_CREATE, VpCreate.build(cpu=2, vm_fd=vm), file=node) == 0
            assert vmm.map(vm, 0, 16 * PAGE, address) == 0
            assert pins(driven) == before + 16
            tables = Tables(driven, 2)
            assert vmm.call("close", vm if first == "vm" else node) == 0
            if first == "vm":
                assert (pins(driven), tables.look(0)) == (before, None)
                assert privileged(driven, 2).vp_created != 0
            else:
                assert pins(driven) == before + 16
                assert privileged(driven, 2).vp_created == 0
            assert vmm.call("close", node if first == "vm" else vm) == 0
            assert pins(driven) == before
            assert privileged(driven, 2).vp_created == 0

    def test_who_is_killed_leaves_nothing(self, driven: LinuxSession) -> None:
        before = pins(driven)
        with Vmm(driven) as vmm:
            vmm.claim(1, 2, 3)
            vm, other, address = vmm.vm(), vmm.vm(), vmm.call("memory", 512)
            assert [vmm.create(cpu, vm) for cpu in (1, 2)] + [vmm.create(3, other)] == [0, 0, 0]
            places = [(memory, gpa) for memory in (vm, other) for gpa in (0, 1 << 40)]
            assert [vmm.map(memory, gpa, 512 * PAGE, address) for memory, gpa in places] == [0] * 4
            assert vmm.bind(1, vmm.call("eventfd"), 3) == 0
            vmm.start(1, RaiseKind.WAIT_FOR_STOP)
            assert pins(driven) == before + 4 * 512
        wait_until(lambda: pins(driven) == before, seconds=SECONDS, what="every page to be unpinned", interval=0.1)
        assert [privileged(driven, cpu).vp_created for cpu in (1, 2, 3)] == [0, 0, 0]
        assert [shown(driven, cpu, "claimed") for cpu in (1, 2, 3)] == ["0"] * 3

    def test_a_cpu_that_does_not_take_note(self, driven: LinuxSession, vmm: Vmm) -> None:
        """Is lost, and the pages stay pinned until it has been restarted."""
        log = KernelLog(driven)
        vm, address = vmm.vm(), vmm.call("memory", 4)
        assert vmm.create(1, vm) == 0
        assert [vmm.map(vm, 0, 4 * PAGE, address), vmm.map(vm, LARGE, PAGE, address)] == [0, 0]
        before = pins(driven)
        tables = Tables(driven, 1)
        vmm.start(1, RaiseKind.SPIN)
        driven.guest.run(f"echo 300 > {PARAMETERS}/timeout_ms").check()
        assert vmm.unmap(vm, 0, 4 * PAGE) == "ETIMEDOUT"
        assert (tables.look(0), pins(driven), shown(driven, 1, "state")) == (None, before, "lost")
        assert vmm.unmap(vm, 0, 4 * PAGE) == "ENOENT"
        assert vmm.map(vm, 2 * PAGE, PAGE, address) == "EEXIST"
        assert [vmm.destroy(1), vmm.ask(Ioctl.RUN, 1)] == ["EIO", "EIO"]
        assert vmm.call("finished", vmm.node, SECONDS) == [1]
        text = log.text
        sentence = "has not taken note of a change of its guest's memory, its status is run, its state lost"
        assert f"CPU 1 (APIC id 0x1, node 0, index 1): {sentence}" in text
        assert "4 pages at guest address 0x0 stay pinned until every CPU has taken note" in text
        assert vmm.ask(Ioctl.RESTART, 1) == 0
        assert pins(driven) == before
        assert vmm.map(vm, 2 * PAGE, PAGE, address) == 0
        assert pins(driven) == before - 3
        assert [vmm.unmap(vm, LARGE, PAGE), vmm.destroy(1)] == [0, 0]

    def test_a_cpu_that_takes_note_late(self, driven: LinuxSession, vmm: Vmm) -> None:
        """In the place of the CPU, which does something else, the host says that it has."""
        vm, address = vmm.vm(), vmm.call("memory", 1)
        assert [vmm.create(1, vm), vmm.map(vm, 0, PAGE, address)] == [0, 0]
        vmm.start(1, RaiseKind.WAIT_FOR_STOP)
        before = privileged(driven, 1).guest_generation
        set_privileged(driven, 1, "seen_generation", before + 1)
        assert vmm.unmap(vm, 0, PAGE) == 0
        assert privileged(driven, 1).guest_generation == before + 1
        assert vmm.call("pinned_kib") == 0
        vmm.stop(1)
