"""TRANSLATE_GVA on the machine, judged by the guest itself: what the processor allows, the command allows.

The guest accesses an address; a page fault tells its error code and address. The command, asked the same of the same
tables before, must have said so.
"""

import itertools
import struct

import pytest

from sidecar.layout.hv import HvCacheType, HvTranslateFlags, HvTranslateResult
from sidecar.layout.hv_messages import HvMessageType
from sidecar.layout.svm import NestedFault
from sidecar.layout.x86 import Cr0, Cr4, Efer, Pte, Rflags, Vector
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.nested import Rights
from sidecar.protocol.requests import Request
from sidecar.protocol.translation import RaisedException, Translation, translate_request
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import cpus, guests

READ, WRITE, EXECUTE = (
    HvTranslateFlags.VALIDATE_READ, HvTranslateFlags.VALIDATE_WRITE, HvTranslateFlags.VALIDATE_EXECUTE,
)  # fmt: skip
INSTRUCTIONS = {READ: "mov al, byte ptr [rbx]", WRITE: "mov byte ptr [rbx], 0xf4", EXECUTE: "jmp rbx"}
"""What is written and what is executed there is a HLT."""

TABLE, PAGE = 0x6000, 0xE000
PROBE = 1 << 30 | 0x3000
"""Its PDPT entry leads to TABLE, which serves as page directory and as page table."""
MODES = {
    "4 levels": (Cr4.PAE, Efer.LME | Efer.NXE),
    "4 levels without NX": (Cr4.PAE, Efer.LME),
    "5 levels": (Cr4.PAE | Cr4.LA57, Efer.LME | Efer.NXE),
    "PAE": (Cr4.PAE, Efer.NXE),
    "32 bits": (0, 0),
}
PML5, PDPTES = 0xF000, 0x3FE0
P, W, U, A, D = Pte.PRESENT, Pte.WRITE, Pte.USER, Pte.ACCESSED, Pte.DIRTY


def start(vp: HostedVp, *, cr4: int = 0, ac: bool = False, wp: bool = True) -> None:
    """64-bit mode, at CODE."""
    guests.start_long(vp, "hlt")
    vp.cpu.set_registers({
        "HvX64RegisterCr4": Cr4.PAE | Cr4.OSFXSR | cr4, "HvX64RegisterRflags": 2 | (Rflags.AC if ac else 0),
        "HvX64RegisterCr0": Cr0.PE | Cr0.PG | Cr0.ET | Cr0.NE | (Cr0.WP if wp else 0),
    })  # fmt: skip


def put(vp: HostedVp, table: int, index: int, entry: int) -> None:
    struct.pack_into("<Q", vp.memory, table + 8 * index, entry)


def entry(vp: HostedVp, table: int, index: int) -> int:
    (value,) = struct.unpack_from("<Q", vp.memory, table + 8 * index)
    return int(value)


def probe(vp: HostedVp, leaf: int, *, upper: int = P | W | U) -> None:
    """Make PROBE lead to the entry `leaf`, over an entry with the rights `upper`."""
    put(vp, guests.PDPT, 1, TABLE | upper)
    put(vp, TABLE, 0, 0xC000 | P | W | U)
    put(vp, 0xC000, 3, leaf)
    vp.memory[PAGE] = 0xF4


def accessed(vp: HostedVp, access: HvTranslateFlags, address: int = PROBE) -> RaisedException | None:
    """The guest does it: None, or the page fault that it raised.

    Each access has code of its own, because QEMU does not see that the host changes what it has translated. TCG leaves
    PRESENT out of the error code of a reserved bit; it is put back.
    """
    place = guests.CODE + 0x40 * access
    code = guests.program(f"{INSTRUCTIONS[access]}\n hlt", at=place)
    vp.memory[place : place + len(code)] = code
    vp.cpu.set_registers({"HvX64RegisterRip": place, "HvX64RegisterRsp": guests.STACK})
    outcome = guests.halted(vp.run(rbx=address))
    if outcome.rip != guests.trap(Vector.PAGE_FAULT):
        return None
    error_code = guests.quad(vp, outcome.rsp)
    error_code |= NestedFault.PRESENT if error_code & NestedFault.RESERVED else 0
    return RaisedException(Vector.PAGE_FAULT, error_code, outcome.gps["cr2"])


LEAVES = [
    present | write | user | nx
    for present, write, user, nx in itertools.product((0, P), (0, W), (0, U), (0, Pte.NX))
]  # fmt: skip


@pytest.mark.parametrize("wp", [True, False], ids=["WP", "no WP"])
@pytest.mark.parametrize("ac", [True, False], ids=["AC", "no AC"])
@pytest.mark.parametrize("cr4", [0, Cr4.SMEP, Cr4.SMAP, Cr4.SMEP | Cr4.SMAP], ids=["none", "SMEP", "SMAP", "both"])
def test_the_supervisor_of_the_guest_agrees(vp: HostedVp, cr4: int, ac: bool, wp: bool) -> None:
    """Every leaf with every access; SMEP and SMAP want supervisor pages for code and stack."""
    for level in (guests.PML4, guests.PDPT):
        put(vp, level, 0, entry(vp, level, 0) | U)
    for index in range(512):
        put(vp, guests.PD, index, entry(vp, guests.PD, index) & ~U)
    start(vp, cr4=cr4, ac=ac, wp=wp)
    for leaf, access in itertools.product(LEAVES, INSTRUCTIONS):
        probe(vp, PAGE | leaf)
        said = vp.cpu.translate(PROBE, access)
        did = accessed(vp, access)
        assert (said.exception, said.result == HvTranslateResult.SUCCESS) == (did, did is None), (hex(leaf), access)


@pytest.mark.parametrize("bit", [7, 8, 40, 51, 52, 62])
def test_reserved_bits(vp: HostedVp, bit: int) -> None:
    """In a leaf and in the level above; bits 7, 8, 52 and 62 of a leaf are free, PS above is a large page."""
    start(vp)
    probe(vp, PAGE | P | W | 1 << bit)
    said = vp.cpu.translate(PROBE, READ)
    assert said.exception == accessed(vp, READ)
    assert said.result == (
        HvTranslateResult.INVALID_PAGE_TABLE_FLAGS if bit in (40, 51) else HvTranslateResult.SUCCESS
    )
    probe(vp, PAGE | P | W)
    put(vp, TABLE, 0, 0xC000 | P | W | 1 << bit)  # PS: bits 14 and 15 of the address are reserved
    said = vp.cpu.translate(PROBE, READ)
    assert said.exception == accessed(vp, READ)
    assert said.result == (
        HvTranslateResult.INVALID_PAGE_TABLE_FLAGS if bit in (7, 40, 51) else HvTranslateResult.SUCCESS
    )


@pytest.mark.parametrize("access", INSTRUCTIONS, ids=lambda access: access.name)
def test_the_command_marks_what_the_processor_marks(vp: HostedVp, access: HvTranslateFlags) -> None:
    places = [(guests.PML4, 0), (guests.PDPT, 1), (TABLE, 0), (0xC000, 3)]

    def marks() -> list[int]:
        return [entry(vp, *place) & (A | D) for place in places]

    def clear() -> None:
        for place in places:
            put(vp, *place, entry(vp, *place) & ~(A | D))

    start(vp)
    probe(vp, PAGE | P | W)
    clear()
    vp.cpu.translate(PROBE, access)
    assert marks() == [0, 0, 0, 0]
    assert vp.cpu.translate(PROBE, access | HvTranslateFlags.SET_PAGE_TABLE_BITS).gpa == PAGE
    commanded = marks()
    clear()
    assert accessed(vp, access) is None
    assert commanded == marks() == [A, A, A, A | (D if access == WRITE else 0)]


def test_marking_needs_tables_that_the_guest_may_write(vp: HostedVp) -> None:
    start(vp)
    probe(vp, PAGE | P | W)
    put(vp, guests.PDPT, 1, TABLE | P | W | A)
    vp.map(TABLE, vp.memory_pa + TABLE, 0x1000, Rights.READ)
    found = vp.cpu.translate(PROBE, READ | HvTranslateFlags.SET_PAGE_TABLE_BITS)
    assert (found.result, found.level, found.gpa) == (HvTranslateResult.GPA_NO_WRITE_ACCESS, 2, TABLE)
    assert vp.cpu.translate(PROBE, READ).result == HvTranslateResult.SUCCESS


# --- modes ------------------------------------------------------------------------------------------------------------


def mode(vp: HostedVp, name: str) -> int:
    """Registers and tables of a mode, in which 0x403000 leads to PAGE; gives the address."""
    cr4, efer = MODES[name]
    address, root = 0x40_3000, guests.PML4
    put(vp, guests.PD, 2, TABLE | P | W | U)
    put(vp, TABLE, 3, PAGE | P | W | U)
    if name == "5 levels":
        put(vp, PML5, 0, guests.PML4 | P | W | U)
        root = PML5
    elif name == "PAE":
        root = 0x7020
        put(vp, root, 0, guests.PD | P)
    elif name == "32 bits":
        root = 0x7000
        struct.pack_into("<II", vp.memory, root, PAGE | P, TABLE | P | W)
        struct.pack_into("<I", vp.memory, TABLE + 4 * 3, PAGE | P | W)
    guests.prepare(vp)
    vp.cpu.set_registers({
        "HvX64RegisterCr0": Cr0.PE | Cr0.PG | Cr0.ET | Cr0.WP, "HvX64RegisterCr3": root, "HvX64RegisterCr4": cr4,
        "HvX64RegisterEfer": efer,
    })  # fmt: skip
    return address


@pytest.mark.parametrize("name", MODES)
def test_every_mode(vp: HostedVp, name: str) -> None:
    address = mode(vp, name)
    for within in (0, 0x123, 0xFFF):
        found = vp.cpu.translate(address + within, READ | WRITE)
        assert found == Translation(HvTranslateResult.SUCCESS, PAGE + within, 0, HvCacheType.WRITE_BACK, None)
    assert vp.cpu.translate(0x8000_0000, READ).result == HvTranslateResult.PAGE_NOT_PRESENT


@pytest.mark.parametrize("address", [0, 0x5432, 0xFFFF, 0xFFFF_FFF0])
def test_without_paging(vp: HostedVp, address: int) -> None:
    found = vp.cpu.translate(address, READ | WRITE | EXECUTE)
    assert (found.result, found.gpa, found.exception) == (HvTranslateResult.SUCCESS, address, None)


def test_an_address_that_is_not_canonical(vp: HostedVp) -> None:
    start(vp)
    found = vp.cpu.translate(1 << 47, READ)
    assert (found.result, found.exception) == (
        HvTranslateResult.PAGE_NOT_PRESENT, RaisedException(Vector.GENERAL_PROTECTION, 0, 0)
    )


# --- guest memory -----------------------------------------------------------------------------------------------------


def test_pages_that_the_guest_does_not_have(vp: HostedVp) -> None:
    """The page, as a device has it; then a table."""
    start(vp)
    probe(vp, 0x20_0000 | P | W | Pte.PCD | Pte.PWT)
    found = vp.cpu.translate(PROBE + 0x44, READ)
    assert found == Translation(HvTranslateResult.GPA_UNMAPPED, 0x20_0044, 0, HvCacheType.UNCACHED, None)
    put(vp, guests.PDPT, 1, 0x20_0000 | P | W)
    found = vp.cpu.translate(PROBE + 0x44, READ)
    assert (found.result, found.gpa, found.level) == (HvTranslateResult.GPA_UNMAPPED, 0x20_0000, 2)


def test_rights_of_the_nested_tables(vp: HostedVp) -> None:
    start(vp)
    probe(vp, PAGE | P | W)
    vp.map(PAGE, vp.memory_pa + PAGE, 0x1000, Rights.READ)
    results = [vp.cpu.translate(PROBE, access).result for access in (READ, WRITE, EXECUTE)]
    assert results == [
        HvTranslateResult.SUCCESS, HvTranslateResult.GPA_NO_WRITE_ACCESS, HvTranslateResult.GPA_NO_READ_ACCESS,
    ]  # fmt: skip
    vp.unmap(PAGE, 0x1000)
    assert vp.cpu.translate(PROBE, READ).result == HvTranslateResult.GPA_UNMAPPED
    vp.map(PAGE, vp.memory_pa + PAGE, 0x1000)
    assert vp.cpu.translate(PROBE, WRITE).result == HvTranslateResult.SUCCESS


def test_an_exit_for_memory_brings_the_instruction(vp: HostedVp) -> None:
    """Also one that lies across two pages of the guest."""
    text = "mov qword ptr [rbx + 0x10], 0x12345678"
    code = guests.program(text)
    for at in (guests.CODE, guests.CODE + 0x1000 - 3):
        guests.start_long(vp, text, at=at)
        seen = guests.message(vp.run(rbx=0x20_0000), HvMessageType.UNMAPPED_GPA)
        assert seen.instruction[: len(code)] == code
        assert len(seen.instruction) == 15
        assert (seen.body.gpa, seen.header.rip) == (0x20_0010, at)


def test_refusals(vp: HostedVp, hosted: Session) -> None:
    with pytest.raises(SidecarCommandError, match=r"command 4: control flags 0x400 are not known"):
        vp.cpu.translate(0, 1 << 10)
    with pytest.raises(SidecarCommandError, match=r"command 4: page 0x10000000000000, expected less than 2\^52"):
        vp.cpu.execute(Request(4).command, translate_request(1 << 64))
    cpus.assert_answers(vp.cpu)


def test_without_a_virtual_processor(hosted: Session) -> None:
    cpus.tidy(hosted)
    with pytest.raises(SidecarCommandError, match=r"command 4: this CPU was given no virtual processor$"):
        hosted.cpus[1].translate(0)
    cpus.assert_answers(hosted.cpus[1])
