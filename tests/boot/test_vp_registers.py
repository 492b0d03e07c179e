"""GET and SET of a virtual processor's registers on the machine: reset state, what the guest sees, what it leaves."""

import random
import struct

import pytest

from sidecar.layout import HvStatus
from sidecar.layout.command import GetSetVpRegisterRequest
from sidecar.layout.hv_messages import HvMessageType
from sidecar.layout.hv_registers import HvRegisterName as Name
from sidecar.layout.register_table import RegisterRule
from sidecar.layout.x86 import PAT_RESET_VALUE, ApicBase, Cr0, Cr4, Efer
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.requests import register_request
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import cpus, guests
from tests.support.register_model import GET, NUMBERS, ROWS, SET, VP_NUMBERS, Pairs, RegisterModel

FLAT = guests.TLFS_DATA << 112 | guests.DATA_SEGMENT << 96 | 0xFFFFFFFF << 64
LONG_MODE = {
    "HvX64RegisterCr0": Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.PG,
    "HvX64RegisterCr3": guests.PML4,
    "HvX64RegisterCr4": Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT,
    "HvX64RegisterEfer": Efer.LME | Efer.NXE | Efer.SCE,
    "HvX64RegisterGdtr": guests.GDT << 64 | (8 * len(guests.DESCRIPTORS) - 1) << 48,
    "HvX64RegisterIdtr": guests.IDT << 64 | (16 * 256 - 1) << 48,
    "HvX64RegisterCs": guests.TLFS_CODE64 << 112 | guests.CODE64 << 96 | 0xFFFFFFFF << 64,
    **{f"HvX64Register{name}": FLAT for name in ("Ds", "Es", "Ss", "Fs", "Gs")},
    "HvX64RegisterRip": guests.CODE,
    "HvX64RegisterRsp": guests.STACK,
    "HvX64RegisterRflags": 2,
}  # fmt: skip
"""64-bit mode with the tables of guests.write_tables."""


def every(cpu: Cpu) -> dict[int, int]:
    """All registers but the TSC."""
    return cpu.get_registers((*NUMBERS, *VP_NUMBERS), seconds=cpus.SECONDS)


def model_of(cpu: Cpu) -> RegisterModel:
    """The judge, told how the virtual processor begins."""
    model, xcr0_mask = RegisterModel(), 0
    for bits in (1, 3, 7, 0xE7, 0x207):
        try:
            cpu.set_registers({"HvX64RegisterXfem": bits})
            xcr0_mask |= bits
        except SidecarCommandError:
            continue
    cpu.set_registers({"HvX64RegisterXfem": 1})
    model.give_vp(every(cpu), xcr0_mask=xcr0_mask)
    return model


# --- values -----------------------------------------------------------------------------------------------------------


def test_the_reset_state(vp: HostedVp) -> None:
    """Ref: AMD64 APM vol. 2, table 14-1; all that is not named is 0."""
    data = 0x0093 << 112 | 0xFFFF << 64
    expected = dict.fromkeys(VP_NUMBERS, 0) | RegisterModel().values | {
        Name.HvX64RegisterCr0: Cr0.CD | Cr0.NW | Cr0.ET,
        Name.HvX64RegisterRflags: 2,
        Name.HvX64RegisterRip: 0xFFF0,
        Name.HvX64RegisterCs: (0x009B << 48 | 0xF000 << 32 | 0xFFFF) << 64 | 0xFFFF0000,
        **{Name[f"HvX64Register{name}"]: data for name in ("Ds", "Es", "Ss", "Fs", "Gs")},
        Name.HvX64RegisterLdtr: (0x0082 << 48 | 0xFFFF) << 64,
        Name.HvX64RegisterTr: (0x008B << 48 | 0xFFFF) << 64,
        Name.HvX64RegisterGdtr: 0xFFFF << 48,
        Name.HvX64RegisterIdtr: 0xFFFF << 48,
        Name.HvX64RegisterPat: PAT_RESET_VALUE,
        Name.HvX64RegisterXfem: 1,
    }  # fmt: skip
    found = every(vp.cpu)
    assert found[Name.HvX64RegisterApicBase] & ApicBase.EN
    free = {
        Name.HvX64RegisterRdx, Name.HvX64RegisterApicBase, Name.HvX64RegisterInitialApicId,
        Name.HvX64RegisterFpControlStatus, Name.HvX64RegisterXmmControlStatus,
    }  # fmt: skip
    assert {Name(n).name: f"{v:#x}" for n, v in found.items() if n not in free and v != expected[n]} == {}
    assert found[Name.HvX64RegisterXmmControlStatus] >> 64 & 0xFFFF == 0x1F80


def test_each_creation_begins_with_the_reset_state(hosted: Session) -> None:
    with guests.virtual_processor(hosted) as vp:
        before = every(vp.cpu)
        vp.cpu.set_registers({number: 1 for number in VP_NUMBERS if ROWS[number].writable & 1})
        assert every(vp.cpu) != before
    with guests.virtual_processor(hosted) as vp:
        assert every(vp.cpu) == before


def test_without_a_virtual_processor(hosted: Session) -> None:
    cpu = hosted.cpus[2]
    for name in ("HvX64RegisterRax", "HvX64RegisterCs", "HvX64RegisterXmm0", "HvX64RegisterTscAux"):
        with pytest.raises(SidecarCommandError, match=r"command 2: this CPU was given no virtual processor$"):
            cpu.get_registers([name])
    cpus.assert_answers(cpu)


def test_every_writable_bit_and_none(vp: HostedVp) -> None:
    """All registers at once, so that one that shares its place with another is found."""
    model = model_of(vp.cpu)
    for pick in (lambda row: row.writable, lambda row: 0, lambda row: row.writable & 0x5555 << 64 | 0x1234):
        for number in VP_NUMBERS:
            compare(vp.cpu, model, SET, [(number, pick(ROWS[number]) & ROWS[number].writable)])
        assert every(vp.cpu) == model.values


@pytest.mark.parametrize("seed", range(10))
def test_random_commands(vp: HostedVp, seed: int) -> None:
    model, choose = model_of(vp.cpu), random.Random(seed)
    for _ in range(20):
        pairs = []
        for number in choose.choices((*NUMBERS, *VP_NUMBERS), k=choose.randint(1, 31)):
            value = choose.getrandbits(128 if ROWS[number].wide else 64)
            pairs.append((number, value & ROWS[number].writable if choose.random() < 0.97 else value))
        compare(vp.cpu, model, choose.choice((GET, SET)), pairs)
    assert every(vp.cpu) == model.values
    cpus.assert_answers(vp.cpu)


def compare(cpu: Cpu, model: RegisterModel, command: int, pairs: Pairs) -> None:
    expected = model.answer(command, pairs)
    if expected.sentence is None:
        cpu.execute(command, register_request(pairs), seconds=cpus.SECONDS)
        return
    with pytest.raises(SidecarCommandError) as caught:
        cpu.execute(command, register_request(pairs), seconds=cpus.SECONDS)
    data = bytes(cpu.pages.command.request_data)
    (status,) = struct.unpack_from("<H", data, int(GetSetVpRegisterRequest.status))
    assert (caught.value.sentence, status) == (expected.sentence, expected.status)
    assert status == HvStatus.INVALID_REGISTER_VALUE


# --- the guest --------------------------------------------------------------------------------------------------------


def test_a_guest_started_by_set_alone_sees_what_was_set(vp: HostedVp) -> None:
    """Each general register, three MSRs, a control register, an XMM register."""
    names = ("Rax", "Rcx", "Rdx", "Rbx", "Rbp", "Rsi", "Rdi", *(f"R{n}" for n in range(8, 16)))
    stores = "".join(
        f" mov qword ptr [{guests.DATA + 8 * n:#x}], {name.lower()}\n" for n, name in enumerate(names)
    )
    after = guests.DATA + 8 * len(names)
    guests.load(vp, stores + f"""
            movups  xmmword ptr [{after:#x}], xmm5
            mov     rax, cr3
            mov     qword ptr [{after + 16:#x}], rax
            mov     rax, dr3
            mov     qword ptr [{after + 24:#x}], rax
            mov     ecx, Msr.LSTAR
            rdmsr
            mov     dword ptr [{after + 32:#x}], eax
            mov     dword ptr [{after + 36:#x}], edx
            hlt
    """)
    values = {f"HvX64Register{name}": 0x1111_0000_0000_0000 + n for n, name in enumerate(names)}
    xmm, lstar, dr3 = 0xFEDCBA98_76543210_01234567_89ABCDEF, 0xFFFF_8000_1234_5678, 0x7000
    vp.cpu.set_registers(LONG_MODE | values | {
        "HvX64RegisterXmm5": xmm, "HvX64RegisterLstar": lstar, "HvX64RegisterDr3": dr3,
    })  # fmt: skip
    guests.halted(vp.run())
    found = struct.unpack_from(f"<{len(names)}Q", vp.memory, guests.DATA)
    assert found == tuple(values.values())
    assert bytes(vp.memory[after : after + 16]) == xmm.to_bytes(16, "little")
    assert struct.unpack_from("<3Q", vp.memory, after + 16) == (guests.PML4, dr3, lstar)


def test_get_shows_what_the_guest_did(vp: HostedVp) -> None:
    guests.load(vp, f"""
            mov     rax, 0xffff800000005000
            mov     rdx, 0xffff8000
            mov     ecx, Msr.KERNEL_GS_BASE
            wrmsr
            mov     ecx, Msr.EFER
            rdmsr
            and     eax, ~Efer.SCE
            wrmsr
            mov     eax, 0x1234
            mov     dr2, rax
            mov     cr2, rax
            lidt    [{guests.DATA:#x}]
            pcmpeqd xmm3, xmm3
            mov     eax, {guests.DATA_SEGMENT}
            mov     fs, eax
            mov     r14, -1
            std
            hlt
    """)
    vp.memory[guests.DATA : guests.DATA + 10] = struct.pack("<HQ", 0x6F, 0x9000)
    vp.cpu.set_registers(LONG_MODE)
    outcome = guests.halted(vp.run())
    found = every(vp.cpu)
    assert found[Name.HvX64RegisterKernelGsBase] == 0xFFFF8000_00005000
    assert found[Name.HvX64RegisterEfer] == Efer.LME | Efer.LMA | Efer.NXE
    assert (found[Name.HvX64RegisterDr2], found[Name.HvX64RegisterCr2]) == (0x1234, 0x1234)
    assert found[Name.HvX64RegisterIdtr] == 0x9000 << 64 | 0x6F << 48
    assert found[Name.HvX64RegisterXmm3] == (1 << 128) - 1
    assert found[Name.HvX64RegisterFs] >> 96 & 0xFFFF == guests.DATA_SEGMENT
    assert found[Name.HvX64RegisterR14] == (1 << 64) - 1
    assert (found[Name.HvX64RegisterRip], found[Name.HvX64RegisterRsp]) == (outcome.rip, outcome.rsp)
    assert found[Name.HvX64RegisterRflags] == outcome.rflags


def test_another_cr3_shows_other_memory_at_once(vp: HostedVp) -> None:
    """The guest reads one address again and again; between its halts only CR3 is set."""
    vp.memory[0x6000:0x7000] = bytes(vp.memory[guests.PML4 : guests.PML4 + 0x1000])
    rights = 7
    struct.pack_into("<Q", vp.memory, 0x6000 + 8, 0xC000 | rights)
    struct.pack_into("<Q", vp.memory, guests.PML4 + 8, 0xD000 | rights)
    for table, page in ((0xC000, 0xE000), (0xD000, 0xF000)):
        struct.pack_into("<Q", vp.memory, table, table | rights)  # the lower levels are the table itself
        struct.pack_into("<Q", vp.memory, table + 8, page | rights)
        vp.memory[page : page + 8] = page.to_bytes(8, "little")
    address = 1 << 39 | 0x1000
    guests.load(vp, f"again: mov rbx, {address:#x}\n mov rax, qword ptr [rbx]\n hlt\n jmp again")
    vp.cpu.set_registers(LONG_MODE)
    seen, advance = [], 0
    for root in (guests.PML4, 0x6000, guests.PML4, 0x6000):
        vp.cpu.set_registers({"HvX64RegisterCr3": root})
        seen.append(guests.halted(vp.run(advance_rip=advance)).gps["rax"])
        advance = 1
    assert seen == [0xF000, 0xE000, 0xF000, 0xE000]


def test_state_that_the_processor_refuses_ends_the_run_and_stays(vp: HostedVp) -> None:
    """Long mode without PAE is no single register's mistake: SET takes it, the run does not."""
    guests.load(vp, "hlt")
    vp.cpu.set_registers(LONG_MODE | {"HvX64RegisterCr4": 0})
    outcome = vp.run()
    guests.message(outcome, HvMessageType.INVALID_VP_REGISTER_VALUE)
    assert vp.cpu.get_registers(["HvX64RegisterCr4", "HvX64RegisterRip"]) == {
        "HvX64RegisterCr4": 0, "HvX64RegisterRip": guests.CODE,
    }  # fmt: skip
    vp.cpu.set_registers({"HvX64RegisterCr4": LONG_MODE["HvX64RegisterCr4"]})
    guests.halted(vp.run())


def test_a_stopped_guest_goes_on_elsewhere(hosted: Session) -> None:
    """All registers from one CPU's virtual processor to another's, over the same memory contents."""
    text = "again:  inc rbx\n movq xmm7, rbx\n add rcx, rbx\n hlt\n jmp again"
    with guests.virtual_processor(hosted, 1) as first, guests.virtual_processor(hosted, 2) as second:
        for vp in (first, second):
            guests.load(vp, text)
        first.cpu.set_registers(LONG_MODE)
        guests.halted(first.run(rbx=4, rcx=100))
        moved = {
            number: value for number, value in every(first.cpu).items()
            if ROWS[number].writable and ROWS[number].rule is not RegisterRule.TSC
        }  # fmt: skip
        second.cpu.set_registers(moved)
        outcome = guests.halted(second.run(advance_rip=1))
        assert (outcome.gps["rbx"], outcome.gps["rcx"]) == (6, 111)
        assert second.cpu.get_registers(["HvX64RegisterXmm7"]) == {"HvX64RegisterXmm7": 6}
    cpus.tidy(hosted)


def test_the_tsc(vp: HostedVp) -> None:
    vp.cpu.set_registers({"HvX64RegisterTsc": 1 << 60})
    first = vp.cpu.get_registers(["HvX64RegisterTsc"])["HvX64RegisterTsc"]
    guests.load(vp, "rdtsc\n shl rdx, 32\n or rax, rdx\n hlt")
    vp.cpu.set_registers(LONG_MODE)
    guest = guests.halted(vp.run()).gps["rax"]
    last = vp.cpu.get_registers(["HvX64RegisterTsc"])["HvX64RegisterTsc"]
    assert 1 << 60 <= first < guest < last < 1 << 61
