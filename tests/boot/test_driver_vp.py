"""Virtual processors and doorbells of /dev/sidecarN as docs/driver.md has them: what the CPU is told."""

import struct
from collections.abc import Callable

import pytest

from sidecar.layout import RaiseKind
from sidecar.layout.ioctl import Ioctl, VpIoctl
from sidecar.layout.svm import IOPM_PAGES, VP_PAGES
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.kernel_log import KernelLog
from tests.support.linux_driver import PARAMETERS, shown, unload, wait_settled
from tests.support.linux_vmm import SECONDS, Result, Vmm, privileged, set_privileged

PAGE = 4096


class TestMistakes:
    def test_cpus(self, vmm: Vmm) -> None:
        vm, event = vmm.vm(), vmm.call("eventfd")
        calls: dict[str, Callable[[int], Result]] = {
            "VP_CREATE": lambda cpu: vmm.create(cpu, vm), "VP_DESTROY": vmm.destroy,
            "DOORBELL": lambda cpu: vmm.ring(cpu, 1), "DOORBELL_FD": lambda cpu: vmm.bind(cpu, event, 0),
        }  # fmt: skip
        for name, call in calls.items():
            expected = ["EINVAL", "ENOENT", "EPERM"]
            assert (name, [call(99), call(0), call(2)]) == (name, expected)
        for what in (VpIoctl.VP_CREATE, VpIoctl.DOORBELL, VpIoctl.DOORBELL_FD):
            assert vmm.ask(what, 0x1000) == "EFAULT"
        assert [calls[name](1) for name in ("VP_DESTROY", "DOORBELL", "DOORBELL_FD")] == ["ENOENT"] * 3
        assert [vmm.create(1, vm), vmm.create(1, vm)] == [0, "EEXIST"]
        assert vmm.tell(VpIoctl.DOORBELL, struct.pack("<2IQ", 1, 1, 1)) == "EINVAL"
        assert vmm.tell(VpIoctl.DOORBELL_FD, struct.pack("<4I", 1, event, 0, 1)) == "EINVAL"
        assert [vmm.bind(1, event, 64), vmm.bind(1, 999, 0), vmm.bind(1, vm, 0)] == ["EINVAL", "EBADF", "EINVAL"]
        assert vmm.unbind(1, 0) == "ENOENT"
        assert [vmm.bind(1, event, 0), vmm.bind(1, event, 0)] == [0, "EBUSY"]
        assert vmm.ask(Ioctl.RELEASE, 1) == "EBUSY"
        assert [vmm.destroy(1), vmm.ask(Ioctl.RELEASE, 1)] == [0, 0]

    def test_a_cpu_that_is_busy_or_faulted(self, vmm: Vmm) -> None:
        vm = vmm.vm()
        vmm.start(1, RaiseKind.WAIT_FOR_STOP)
        assert vmm.create(1, vm) == "EBUSY"
        vmm.stop(1)
        assert vmm.create(1, vm) == 0
        vmm.start(1, RaiseKind.WAIT_FOR_STOP)
        assert vmm.destroy(1) == "EBUSY"
        vmm.stop(1)
        assert vmm.destroy(1) == 0
        vmm.fault(1)
        assert vmm.create(1, vm) == "EIO"
        assert [vmm.ask(Ioctl.RESTART, 1), vmm.create(1, vm)] == [0, 0]


class TestVirtualProcessors:
    def test_what_the_cpu_is_told(self, driven: LinuxSession, vmm: Vmm) -> None:
        vm = vmm.vm()
        vmm.claim(2)
        before = privileged(driven, 1)
        assert before.vp_created == 0
        assert [vmm.create(1, vm), vmm.create(2, vm)] == [0, 0]
        assert [shown(driven, cpu, "vp") for cpu in (1, 2, 3)] == ["1", "1", "0"]
        one, two = privileged(driven, 1), privileged(driven, 2)
        assert one.guest_root_pa == two.guest_root_pa
        assert 0 not in (one.vp_created, two.vp_created)
        assert one.vp_created != two.vp_created
        assert one.vp_pages_pa % PAGE == one.guest_root_pa % PAGE == 0
        assert abs(one.vp_pages_pa - two.vp_pages_pa) >= VP_PAGES * PAGE
        assert driven.machine.ram.read(one.vp_pages_pa, VP_PAGES * PAGE) == bytes(VP_PAGES * PAGE)
        assert (one.iopm_pa, one.doorbell) == (0, 0)
        assert one.guest_generation == before.guest_generation + 1
        assert [vmm.destroy(1), vmm.destroy(1), vmm.create(1, vm)] == [0, "ENOENT", 0]
        assert privileged(driven, 1).vp_created > two.vp_created
        assert vmm.destroy(2) == 0
        gone = privileged(driven, 2)
        assert (gone.vp_created, gone.vp_pages_pa, gone.guest_root_pa, gone.doorbell) == (0, 0, 0, 0)

    def test_linux_does_not_get_a_cpu_that_has_one(self, driven: LinuxSession, vmm: Vmm) -> None:
        log = KernelLog(driven)
        assert vmm.create(1, vmm.vm()) == 0
        assert vmm.call("online", 1, True) == "EAGAIN"
        assert "CPU 1 (APIC id 0x1, node 0, index 1): Linux cannot have it: it has a virtual processor" in log.text
        assert vmm.destroy(1) == 0
        assert [vmm.call("online", 1, yes) for yes in (True, False)] == [0, 0]
        assert vmm.create(1, vmm.vm()) == 0

    def test_a_restart_keeps_it_in_the_reset_state(self, driven: LinuxSession, vmm: Vmm) -> None:
        assert vmm.create(1, vmm.vm()) == 0
        before = privileged(driven, 1)
        driven.machine.ram.view(before.vp_pages_pa + PAGE, 4)[:] = b"junk"
        vmm.fault(1)
        assert vmm.ring(1, 4) == 0
        assert vmm.ask(Ioctl.RESTART, 1) == 0
        after = privileged(driven, 1)
        assert (after.vp_pages_pa, after.guest_root_pa) == (before.vp_pages_pa, before.guest_root_pa)
        assert after.vp_created > before.vp_created
        assert after.guest_generation > before.guest_generation
        assert after.doorbell == 4
        assert driven.machine.ram.read(after.vp_pages_pa, VP_PAGES * PAGE) == bytes(VP_PAGES * PAGE)
        vmm.fault(1)
        assert vmm.destroy(1) == 0
        assert shown(driven, 1, "status") == "faulted"
        assert vmm.ask(Ioctl.RESTART, 1) == 0

    def test_the_file_is_closed_in_a_command_that_does_not_end(self, driven: LinuxSession, vmm: Vmm) -> None:
        """The CPU is restarted, and nobody's."""
        before = int(shown(driven, 1, "timeouts"))
        assert vmm.create(1, vmm.vm()) == 0
        vmm.start(1, RaiseKind.SPIN)
        driven.guest.run(f"echo 300 > {PARAMETERS}/timeout_ms").check()
        vmm.kill()
        wait_until(lambda: shown(driven, 1, "claimed") == "0", seconds=SECONDS, what="the CPU to be free", interval=0.1)
        assert int(shown(driven, 1, "timeouts")) == before + 1
        assert privileged(driven, 1).vp_created == 0
        assert shown(driven, 1, "state") == "available"


class TestDoorbells:
    def test_bits_are_posted(self, driven: LinuxSession, vmm: Vmm) -> None:
        vmm.claim(2)
        vm = vmm.vm()
        assert [vmm.create(1, vm), vmm.create(2, vm)] == [0, 0]
        assert [vmm.ring(1, 0), vmm.ring(1, 1), vmm.ring(1, 1 << 63), vmm.ring(1, 1)] == [0] * 4
        assert [privileged(driven, cpu).doorbell for cpu in (1, 2)] == [1 << 63 | 1, 0]
        assert [vmm.destroy(1), vmm.create(1, vm)] == [0, 0]
        assert privileged(driven, 1).doorbell == 0

    def test_eventfds_post_bits(self, driven: LinuxSession, vmm: Vmm) -> None:
        """One may be bound several times; what it has when it is bound counts; afterwards it posts nothing."""
        assert vmm.create(1, vmm.vm()) == 0
        event, early = vmm.call("eventfd"), vmm.call("eventfd", 5)
        assert [vmm.bind(1, event, 0), vmm.bind(1, event, 63), vmm.bind(1, early, 7)] == [0, 0, 0]
        assert privileged(driven, 1).doorbell == 1 << 7
        assert [vmm.call("count", early), vmm.call("signal", event, 2)] == ["EAGAIN", 0]
        assert vmm.call("count", event) == "EAGAIN"
        assert privileged(driven, 1).doorbell == 1 << 63 | 1 << 7 | 1
        set_privileged(driven, 1, "doorbell", 0)
        assert [vmm.unbind(1, 0), vmm.call("signal", event), vmm.unbind(1, 0)] == [0, 0, "ENOENT"]
        assert privileged(driven, 1).doorbell == 1 << 63
        assert [vmm.bind(1, early, 0), vmm.unbind(1, 63), vmm.call("signal", event)] == [0, 0, 0]
        assert vmm.call("count", event) == 1
        assert vmm.call("close", early) == 0
        assert [vmm.destroy(1), vmm.call("signal", event)] == [0, 0]
        assert privileged(driven, 1).doorbell == 0


class TestPorts:
    def test_those_that_the_parameter_lists_and_none_else(self, bare: LinuxSession) -> None:
        bare.load_driver("io_ports=0x80,0x2f8-0x2ff,65535")
        wait_settled(bare)
        try:
            with Vmm(bare) as vmm:
                vmm.claim(1, 2)
                vm = vmm.vm()
                assert [vmm.create(cpu, vm) for cpu in (1, 2)] == [0, 0]
                told = privileged(bare, 1).iopm_pa
                assert (told % PAGE, privileged(bare, 2).iopm_pa) == (0, told)
                bits = int.from_bytes(bare.machine.ram.read(told, IOPM_PAGES * PAGE), "little")
                free = [port for port in range(IOPM_PAGES * PAGE * 8) if not bits >> port & 1]
                assert free == [0x80, *range(0x2F8, 0x300), 65535]
        finally:
            unload(bare)

    @pytest.mark.parametrize("text", ["0x10000", "5-4", "-4", "5-", "com1", "1,,2", "-1"])
    def test_a_list_that_is_none(self, bare: LinuxSession, text: str) -> None:
        log = KernelLog(bare)
        with pytest.raises(GuestError):
            bare.load_driver(f"io_ports={text}")
        assert f"sidecar: io_ports={text} is no list of I/O ports such as 0x2f8-0x2ff,0x80" in log.text
