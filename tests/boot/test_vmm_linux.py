"""`sidecarctl vm` and the VMM library in a guest with the driver: Linux runs beside the virtual machines."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sidecar.client.vmm.loaders.modes import Mode
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints
from tests.support.moving_guest import moves
from tests.support.multiboot_kernel import kernel
from tests.support.stock_linux import StockLinux
from tests.support.vmm_machine import assembled

pytestmark = pytest.mark.timeout(300)
SECONDS = 120.0
MIB = 1 << 20

TOUCH = """
    start:
            mov     edx, 0x3f8
            mov     eax, edi
            add     eax, '0'
            out     dx, al
            mov     ebx, 0xd0000000
            mov     dword ptr [rbx + 4], 5
            mov     eax, dword ptr [rbx + 4]
            cmp     eax, -1
            jne     .bad
            cli
            hlt
    .bad:   mov     eax, 9
            out     0xf4, al
"""
"""Says its number, and finds that nobody is at an address."""


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=4) as booted:
        booted.load_driver()
        booted.guest.put(kernel(), "/root/kernel.elf")
        booted.guest.put(b"from the module\n", "/root/module")
        booted.guest.put(assembled(TOUCH, MIB), "/root/touch.bin")
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(session: LinuxSession) -> Iterator[None]:
    yield
    assert complaints(session) == []


def test_a_multiboot_kernel(session: LinuxSession) -> None:
    options = "--multiboot kernel.elf --module module --append 'a=1 ' --memory 4M --exits /tmp/exits"
    ended = session.guest.run(f"cd /root; sidecarctl vm run {options}", SECONDS)
    assert (ended.status, ended.stdout, ended.stderr) == (1, "kernel.elf a=1from the module\n", "")
    exits = json.loads(session.guest.run("sidecarctl vm exits /tmp/exits --json", SECONDS).check().stdout)
    assert [(row["reason"], row["detail"], row["count"]) for row in exits["rows"]] == [
        ("port", "out 0x3f8 1", len("kernel.elf a=1from the module\n")), ("port", "out 0xf4 1", 1),
    ]  # fmt: skip


def test_three_virtual_processors_and_a_device_that_is_not_there(session: LinuxSession) -> None:
    """The guest's capstone decodes the accesses; all halt with interrupts off."""
    command = f"sidecarctl vm run --raw /root/touch.bin --mode {Mode.LONG.value} --vcpus 3 --memory 2M --json"
    ended = session.guest.run(command, SECONDS)
    result = json.loads(ended.stdout)
    assert (ended.status, result["ended"], sorted(result["console"])) == (0, "halted", ["0", "1", "2"])
    assert result["unclaimed"] == {"address": {"0xd0000004": 6}}


def test_a_guest_that_is_timed_out_leaves_its_cpu_free(session: LinuxSession) -> None:
    session.guest.put(b"\xeb\xfe", "/root/spin.bin")
    ended = session.guest.run("sidecarctl vm run --raw /root/spin.bin --memory 1M --timeout 0.5", SECONDS)
    assert (ended.status, ended.stdout) == (124, "")
    assert ended.stderr == "sidecarctl: the guest was ended after 0.5 s\n"
    assert session.guest.run("sidecarctl ping", SECONDS).status == 0


def test_a_vmm_that_is_killed_leaves_its_cpu_free(session: LinuxSession) -> None:
    """Linux undoes everything when the process ends."""
    session.guest.run(
        "sidecarctl vm run --raw /root/spin.bin --memory 1M & sleep 5; kill -9 $!; sleep 1; sidecarctl ping", SECONDS
    ).check()
    ended = session.guest.run("cd /root; sidecarctl vm run --multiboot kernel.elf --memory 4M", SECONDS)
    assert (ended.status, ended.stdout) == (1, "kernel.elf")


def test_a_virtual_processor_moves_and_linux_has_its_cpu(session: LinuxSession) -> None:
    """Each of its CPUs in turn; tests/campaign does it more often."""
    rounds = 2
    seen = moves(session, rounds, seconds=SECONDS)
    assert seen["wrong"] == []
    assert seen["moved in"] == ["TimeLimitExit", "MemoryExit", "PortExit", "PortExit"] * rounds
    assert seen["linux"] == [True] * rounds
    assert len(seen["refused"]) == 2 * rounds
    assert all("has a virtual processor" in said for said in seen["refused"]), seen["refused"]
    assert session.online_cpus() == {0}
