"""The emulator of instructions where no CPU without devices can be asked: widths, faults, answers of devices."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.client.vmm.answers import Answer, Fault, Stop
from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.memory import ALL, ROM, GuestMemory, Region
from sidecar.client.vmm.mmio.decoder import Mode
from sidecar.client.vmm.mmio.emulator import emulate
from sidecar.client.vmm.ranges import Ranges
from tests.support.vmm_guest import FakeGuest, MemoryDevice
from tests.support.vmm_instructions import DEVICE, NAMES, PAGES, RAM, assembled, memory_exit

R = {name: number for number, name in enumerate(NAMES)}


def parts(ram: bytes = bytes(PAGES)) -> tuple[FakeGuest, GuestMemory, Ranges[Any], MemoryDevice]:
    guest, memory, devices, device = FakeGuest(), GuestMemory(), Ranges[Any]("address"), MemoryDevice(bytes(PAGES))
    memory.add(Region(RAM, memoryview(bytearray(ram)), ALL))
    devices.add(range(DEVICE, DEVICE + PAGES), device)
    guest.general_registers[R["rdi"]], guest.general_registers[R["rsi"]] = DEVICE, RAM
    return guest, memory, devices, device


def test_each_access_is_seen_once_with_its_width() -> None:
    for width, size in (("byte", 1), ("word", 2), ("dword", 4), ("qword", 8)):
        guest, memory, devices, device = parts()
        code = assembled(f"add {width} ptr [rdi + 8], 3", Mode.BITS_64)
        emulate(guest, memory_exit(code, Mode.BITS_64), devices, memory)
        assert device.seen == [(False, 8, size, 0), (True, 8, size, 3)]


def test_an_address_that_nobody_claims() -> None:
    guest, memory, devices, _ = parts()
    guest.general_registers[R["rdi"]] = 0x20000
    emulate(guest, memory_exit(assembled("mov ecx, [rdi]", Mode.BITS_64), Mode.BITS_64, gpa=0x20000), devices, memory)
    assert guest.general_registers[R["rcx"]] == 0xFFFFFFFF
    assert devices.unclaimed == {0x20000: 1}


def test_a_page_fault_of_the_second_operand_comes_before_the_first_is_touched() -> None:
    guest, memory, devices, device = parts()
    guest.faults = {RAM: 4}
    assert emulate(guest, memory_exit(b"\xa4", Mode.BITS_64), devices, memory) is None
    assert (guest.raised, guest.advanced, device.seen) == ((14, 4, RAM), 0, [])


def test_a_fault_in_the_middle_of_a_repetition_leaves_the_guest_there() -> None:
    guest, memory, devices, device = parts(b"abcdefgh" * (PAGES // 8))
    guest.general_registers[R["rcx"]] = 10
    guest.general_registers[R["rsi"]] = RAM + 0xFFC
    guest.faults = {RAM + 0x1000: 0}
    emulate(guest, memory_exit(b"\xf3\xa4", Mode.BITS_64), devices, memory)
    assert device.data[:4] == b"efgh"
    assert (guest.raised, guest.advanced) == ((14, 0, RAM + 0x1000), 0)
    assert [guest.general_registers[R[name]] for name in ("rcx", "rsi", "rdi")] == [6, RAM + 0x1000, DEVICE + 4]


def test_a_long_repetition_is_done_in_parts() -> None:
    guest, memory, devices, device = parts()
    guest.general_registers[R["rcx"]], guest.general_registers[R["rax"]] = 1500, 0x77
    code = b"\xf3\xaa"
    emulate(guest, memory_exit(code, Mode.BITS_64), devices, memory)
    assert (guest.advanced, guest.general_registers[R["rcx"]]) == (0, 1500 - 1024)
    emulate(guest, memory_exit(code, Mode.BITS_64), devices, memory)
    assert (guest.advanced, guest.general_registers[R["rcx"]]) == (2, 0)
    assert bytes(device.data) == b"\x77" * 1500 + bytes(PAGES - 1500)


def test_an_access_across_ram_and_device() -> None:
    guest, memory, devices, device = parts()
    guest.general_registers[R["rdi"]] = RAM + PAGES - 3
    devices = Ranges[Any]("address")
    devices.add(range(RAM + PAGES, RAM + 2 * PAGES), device)
    guest.general_registers[R["rcx"]] = 0x1122334455667788
    code = assembled("mov [rdi], rcx", Mode.BITS_64)
    emulate(guest, memory_exit(code, Mode.BITS_64, gpa=RAM + PAGES), devices, memory)
    assert memory.read(RAM + PAGES - 3, 3) == bytes.fromhex("887766")
    assert device.data[:5] == bytes.fromhex("5544332211")


def test_memory_that_the_guest_may_only_read_is_a_device_for_its_writes() -> None:
    guest, _, devices, _ = parts()
    memory = GuestMemory()
    memory.add(Region(RAM, memoryview(bytearray(b"\5" * PAGES)), ROM))
    guest.general_registers[R["rdi"]] = RAM
    emulate(guest, memory_exit(assembled("inc byte ptr [rdi]", Mode.BITS_64), Mode.BITS_64, gpa=RAM), devices, memory)
    assert memory.read(RAM, 1) == b"\5"
    assert devices.unclaimed == {RAM: 1}


class Stubborn:
    """A device that answers with something else than values."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def read(self, offset: int, size: int) -> Answer:
        return self.answer

    def write(self, offset: int, size: int, value: int) -> Answer:
        return self.answer


@pytest.mark.parametrize(
    ("text", "answer", "advanced", "raised"),
    [
        ("mov ecx, [rdi]", Stop(7, "enough"), 0, None),
        ("mov [rdi], ecx", Stop(7, "enough"), 2, None),
        ("mov ecx, [rdi]", Fault(13, 0), 0, (13, 0, None)),
        ("mov [rdi], ecx", Fault(13, 0), 0, (13, 0, None)),
    ],
)
def test_answers_of_a_device(text: str, answer: Stop | Fault, advanced: int, raised: object) -> None:
    guest, memory, _, _ = parts()
    devices = Ranges[Any]("address")
    devices.add(range(DEVICE, DEVICE + PAGES), Stubborn(answer))
    exit = memory_exit(assembled(text, Mode.BITS_64), Mode.BITS_64, gpa=DEVICE)
    assert emulate(guest, exit, devices, memory) == (answer if isinstance(answer, Stop) else None)
    assert (guest.advanced, guest.raised) == (advanced, raised)


def test_code_that_the_exit_did_not_bring_is_fetched() -> None:
    guest, memory, devices, device = parts(assembled("mov [rdi], ecx", Mode.BITS_64).ljust(PAGES, b"\x90"))
    guest.general_registers[R["rcx"]] = 5
    emulate(guest, memory_exit(b"", Mode.BITS_64, gpa=DEVICE, rip=RAM), devices, memory)
    assert device.seen == [(True, 0, 4, 5)]


def test_16_bit_code_with_segments() -> None:
    guest, memory, devices, device = parts()
    guest.bases = {"ds": DEVICE - 0x100, "es": DEVICE}
    guest.general_registers[R["rbx"]], guest.general_registers[R["rcx"]] = 0xFFFF_0104, 0xABCD1234
    emulate(guest, memory_exit(bytes.fromhex("890f"), Mode.BITS_16, gpa=DEVICE + 4), devices, memory)
    guest.general_registers[R["rdi"]] = 0xFFFF0008
    emulate(guest, memory_exit(bytes.fromhex("66ab"), Mode.BITS_16, gpa=DEVICE + 8), devices, memory)
    assert device.seen == [(True, 4, 2, 0x1234), (True, 8, 4, 0)]
    assert guest.general_registers[R["rdi"]] == 0xFFFF000C


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("0f0b", "'ud2' at 0x1000 is not emulated"),
        ("ff27", r"'jmp qword ptr \[rdi\]' at 0x1000 is not emulated"),
        ("ff17", r"'call qword ptr \[rdi\]' at 0x1000 is not emulated"),
        ("6a05", "'push 5' at 0x1000 is not emulated"),
        ("0fae07", r"'fxsave \[rdi\]' at 0x1000 is not emulated"),
        ("c5fe6f07", "has the operand ymm0, which is not emulated"),
        ("ffff", "no instruction"),
        ("8e07", "has the operand es"),
    ],
)
def test_what_is_not_emulated_is_named(code: str, words: str) -> None:
    guest, memory, devices, _ = parts()
    with pytest.raises(Undecodable, match=words):
        emulate(guest, memory_exit(bytes.fromhex(code).ljust(15, b"\xff"), Mode.BITS_64), devices, memory)
    assert (guest.advanced, guest.raised) == (0, None)


# --- operands that the text does not have ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rax", "rdx", "divisor", "expected"),
    [
        ("div byte ptr [rdi]", 0xFF07, 9, 0x100 - 1, None),
        ("div byte ptr [rdi]", 0x1234, 9, 0x13, (0x05F5, 9)),
        ("idiv byte ptr [rdi]", 0xFF80, 9, 2, (0x00C0, 9)),
        ("idiv word ptr [rdi]", 0xFFF9, 0xFFFF, 2, (0xFFFD, 0xFFFF)),
        ("idiv dword ptr [rdi]", 7, 0, 0xFFFFFFFE, (0xFFFFFFFD, 1)),
        ("idiv dword ptr [rdi]", 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF, None),
        ("idiv qword ptr [rdi]", 1 << 63, (1 << 64) - 1, 1, (1 << 63, 0)),
        ("div qword ptr [rdi]", 5, 2, 2, None),
        ("idiv qword ptr [rdi]", 5, 1 << 63, 0, None),
        ("div dword ptr [rdi]", 5, 0, 0, None),
    ],
)
def test_quotients(text: str, rax: int, rdx: int, divisor: int, expected: tuple[int, int] | None) -> None:
    """#DE for one that does not fit, with everything as it was. Remainders have the dividend's sign."""
    guest, memory, devices, device = parts()
    device.data[:8] = divisor.to_bytes(8, "little")
    guest.general_registers[R["rax"]], guest.general_registers[R["rdx"]] = rax, rdx
    emulate(guest, memory_exit(assembled(text, Mode.BITS_64), Mode.BITS_64, gpa=DEVICE), devices, memory)
    found = guest.general_registers[R["rax"]], guest.general_registers[R["rdx"]]
    assert found == (expected or (rax, rdx))
    assert guest.raised == (None if expected else (0, None, None))


def test_a_wide_exchange_that_is_not_aligned() -> None:
    guest, memory, devices, device = parts()
    code = assembled("cmpxchg16b xmmword ptr [rdi + 8]", Mode.BITS_64)
    emulate(guest, memory_exit(code, Mode.BITS_64, gpa=DEVICE + 8), devices, memory)
    assert (guest.raised, device.seen) == ((13, 0, None), [])


@pytest.mark.parametrize("equal", [False, True])
def test_a_wide_exchange(equal: bool) -> None:
    guest, memory, devices, device = parts()
    device.data[:8] = bytes.fromhex("0403020108070605")
    for name, value in (("rax", 0x01020304), ("rdx", 0x05060708 + (not equal)), ("rbx", 0x11), ("rcx", 0x22)):
        guest.general_registers[R[name]] = value
    code = assembled("cmpxchg8b qword ptr [rdi]", Mode.BITS_64)
    emulate(guest, memory_exit(code, Mode.BITS_64, gpa=DEVICE), devices, memory)
    written = (True, 0, 8, 0x22_00000011 if equal else 0x0506070801020304)
    assert device.seen == [(False, 0, 8, 0x0506070801020304), written]
    assert (guest.rflags >> 6 & 1, guest.general_registers[R["rdx"]]) == (equal, 0x05060708)


def test_a_stack_that_is_not_there() -> None:
    """The device is not touched, and RSP stays."""
    for text in ("push qword ptr [rdi]", "pop qword ptr [rdi]"):
        guest, memory, devices, device = parts()
        guest.general_registers[R["rsp"]], guest.faults = RAM + 0x800, {RAM: 6}
        emulate(guest, memory_exit(assembled(text, Mode.BITS_64), Mode.BITS_64, gpa=DEVICE), devices, memory)
        assert guest.raised is not None
        assert (guest.raised[0], guest.general_registers[R["rsp"]], device.seen) == (14, RAM + 0x800, [])


def test_a_pop_addressed_by_the_stack_pointer() -> None:
    """Its target's address is that after the pop; RSP stays if there is a fault."""
    guest, memory, devices, device = parts(bytes(range(256)) * (PAGES // 256))
    guest.general_registers[R["rsp"]] = RAM
    code = assembled(f"pop qword ptr [rsp + {DEVICE - RAM}]", Mode.BITS_64)
    emulate(guest, memory_exit(code, Mode.BITS_64, gpa=DEVICE + 8), devices, memory)
    assert device.seen == [(True, 8, 8, 0x0706050403020100)]
    assert guest.general_registers[R["rsp"]] == RAM + 8
    guest.faults = {DEVICE: 2}
    emulate(guest, memory_exit(code, Mode.BITS_64, gpa=DEVICE + 16), devices, memory)
    assert (guest.raised, guest.general_registers[R["rsp"]]) == ((14, 2, DEVICE + 16), RAM + 8)


def test_a_16_bit_stack() -> None:
    guest, memory, devices, device = parts()
    guest.attributes, guest.bases = 0, {"ss": RAM, "ds": DEVICE}
    guest.general_registers[R["rsp"]], guest.general_registers[R["rdi"]] = 0xABCD0002, 0x10
    device.data[0x10:0x12] = b"\x34\x12"
    emulate(guest, memory_exit(bytes.fromhex("ff35"), Mode.BITS_16, gpa=DEVICE + 0x10), devices, memory)
    assert (memory.read(RAM, 2), guest.general_registers[R["rsp"]]) == (b"\x34\x12", 0xABCD0000)
