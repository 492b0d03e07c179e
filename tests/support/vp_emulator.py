"""A sidecar CPU with a virtual processor on the emulated CPU, with page tables of its own, so that guest windows work.

    vp = VpEmulator()
    vp.set("vp_vmcb", Vmcb.cr3, 0x1000)
    vp.nested(0x1000, frame=3)              guest-physical page 1 is frame 3, writable and executable
    vp.write_guest(0x1000, bytes(8))
    vp.call("walk_guest", rbp=FRAME)

Frames are the pages of the emulated machine's memory that the driver would have given: nested tables first, then the
guest's. The image and all else lie where they are, one to one; only the windows move.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from unicorn import unicorn_const, x86_const

from sidecar.builder import image
from sidecar.layout import PAGE_SIZE, PrivilegedPage
from sidecar.layout.address_map import (
    GUEST_WINDOW_SLOT,
    GUEST_WINDOWS,
    IMAGE_VA,
    LARGE_PAGE,
    PER_CPU_VA,
    TABLE_ENTRIES,
    VP_TABLE_SLOT,
    VP_VA,
    absolute_symbols,
)
from sidecar.layout.private import VpGlobals, VpState
from sidecar.layout.x86 import Cpuid, Cr0, Cr4, Efer, Msr, Pte
from tests.support.emulator import Emulator, Outcome

BASE: Final = 0x1000_0000
PER_CPU: Final = BASE + PER_CPU_VA - IMAGE_VA
VP: Final = BASE + VP_VA - IMAGE_VA
VP_MAPPED_PAGES: Final = GUEST_WINDOW_SLOT
OWN_TABLES: Final = 0x2000_0000
VP_TABLE: Final = OWN_TABLES
_PML4, _PDPT, _PD, _PT = (OWN_TABLES + PAGE_SIZE * n for n in (1, 2, 3, 7))
FRAME: Final = 0x2100_0000
"""A page for what a routine would have on its caller's stack."""
FRAMES: Final = 0x3000_0000
FRAME_COUNT: Final = 64
FIRST_GUEST_FRAME: Final = 24
ADDRESS_BITS: Final = 39
_RIGHTS: Final = Pte.PRESENT | Pte.WRITE | Pte.USER
_GIGABYTES: Final = 4
_SLOTS: Final = 16
_LARGE_PAGES: Final = b"".join(
    (slot * LARGE_PAGE | _RIGHTS | Pte.LARGE).to_bytes(8, "little") for slot in range(_GIGABYTES * TABLE_ENTRIES)
)


@dataclass(frozen=True, slots=True)
class Page:
    """What the nested tables say of one guest-physical page."""

    frame: int
    writable: bool = True
    executable: bool = True


class VpEmulator:
    """See above. After `reset` there is a virtual processor with an empty VMCB and no guest memory."""

    def __init__(self) -> None:
        per_cpu = range(PER_CPU, PER_CPU + _SLOTS * PAGE_SIZE)
        vp = range(VP, VP + VP_MAPPED_PAGES * PAGE_SIZE)
        memory = (per_cpu, vp, *(range(start, start + pages * PAGE_SIZE) for start, pages in (
            (OWN_TABLES, 9), (FRAME, 1), (FRAMES, FRAME_COUNT),
        )))  # fmt: skip
        self.emulator = Emulator(image.kernel(), base=BASE, memory=memory)
        self._symbols = absolute_symbols()
        self.reset()

    # --- the machine ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Everything as in the beginning."""
        self.emulator.reset()
        self.emulator.cpuid[int(Cpuid.ADDRESS_SIZES)] = (ADDRESS_BITS, 0, 0, 0)
        self._tables = 1
        self.pages: dict[int, Page] = {}
        self._own_tables()
        self.set("privileged_page", PrivilegedPage.vp_created, 1)
        self.set("privileged_page", PrivilegedPage.guest_root_pa, FRAMES)
        self.set("vp_globals", self.vp_state("created"), 1)

    @staticmethod
    def vp_state(field: str) -> int:
        """Offset of a field of VpState in the globals page."""
        return int(VpGlobals.vp) + int(getattr(VpState, field))

    def _own_tables(self) -> None:
        """4 GiB one to one in pages of 2 MiB, but for this CPU's two times 2 MiB."""
        put = self.emulator.write
        put(_PML4, _PDPT | _RIGHTS)
        for gigabyte in range(_GIGABYTES):
            put(_PDPT + 8 * gigabyte, (_PD + gigabyte * PAGE_SIZE) | _RIGHTS)
        put(_PD, _LARGE_PAGES)
        put(_PD + PER_CPU // LARGE_PAGE * 8, _PT | _RIGHTS)
        put(_PD + VP // LARGE_PAGE * 8, VP_TABLE | _RIGHTS)
        for slot in range(_SLOTS):
            put(_PT + 8 * slot, PER_CPU + slot * PAGE_SIZE | _RIGHTS)
        put(_PT + 8 * VP_TABLE_SLOT, VP_TABLE | _RIGHTS)
        for slot in range(VP_MAPPED_PAGES):
            put(VP_TABLE + 8 * slot, VP + slot * PAGE_SIZE | _RIGHTS)

    def call(self, label: str, **registers: int) -> Outcome:
        """Call a routine with paging on."""
        cpu = self.emulator._cpu
        cpu.reg_write(x86_const.UC_X86_REG_CR3, _PML4)
        cpu.reg_write(x86_const.UC_X86_REG_CR4, Cr4.PAE | Cr4.OSFXSR)
        efer = Efer.LME | Efer.LMA | Efer.NXE
        cpu.reg_write(x86_const.UC_X86_REG_MSR, (int(Msr.EFER), int(efer)))
        cpu.reg_write(x86_const.UC_X86_REG_CR0, Cr0.PG | Cr0.WP | Cr0.PE | Cr0.NE | Cr0.ET | Cr0.MP)
        return self.emulator.call(label, **registers)

    @contextmanager
    def whenever(self, label: str, action: Callable[[], None]) -> Iterator[None]:
        """Do something each time the CPU gets to a label, as another CPU would in that moment."""
        cpu, address = self.emulator._cpu, self.emulator.at(label)

        def act(cpu: Any, address: int, size: int, data: Any) -> None:
            action()

        hook = cpu.hook_add(unicorn_const.UC_HOOK_CODE, act, begin=address, end=address)
        cpu.ctl_flush_tb()  # code that was translated before knows no hook
        try:
            yield
        finally:
            cpu.hook_del(hook)
            cpu.ctl_flush_tb()

    def at(self, symbol: str) -> int:
        """Where a page of this CPU lies."""
        return BASE + self._symbols[symbol]

    def set(self, symbol: str, offset: int, value: int | bytes, size: int = 8) -> None:
        self.emulator.write(self.at(symbol) + offset, value, size=size)

    def get(self, symbol: str, offset: int, size: int = 8) -> int:
        return self.emulator.number(self.at(symbol) + offset, size)

    def windows(self) -> list[int]:
        """The windows' entries."""
        return [self.emulator.number(VP_TABLE + 8 * (GUEST_WINDOW_SLOT + n)) for n in range(GUEST_WINDOWS)]

    # --- guest memory -----------------------------------------------------------------------------------------------

    def nested(self, gpa: int, frame: int, *, writable: bool = True, executable: bool = True) -> None:
        """Give the guest a page: guest frame number `frame` at `gpa`."""
        table = FRAMES
        for shift in (39, 30, 21):
            entry = table + (gpa >> shift) % TABLE_ENTRIES * 8
            if not self.emulator.number(entry):
                self.emulator.write(entry, (FRAMES + self._tables * PAGE_SIZE) | _RIGHTS)
                self._tables += 1
                assert self._tables <= FIRST_GUEST_FRAME
            table = self.emulator.number(entry) & -PAGE_SIZE
        value = self.frame(frame) | Pte.PRESENT | Pte.USER | (Pte.WRITE if writable else 0)
        self.emulator.write(table + (gpa >> 12) % TABLE_ENTRIES * 8, value | (0 if executable else Pte.NX))
        self.pages[gpa >> 12] = Page(frame, writable, executable)

    @staticmethod
    def frame(number: int) -> int:
        """Physical address of a guest frame."""
        assert number < FRAME_COUNT - FIRST_GUEST_FRAME
        return FRAMES + (FIRST_GUEST_FRAME + number) * PAGE_SIZE

    def write_guest(self, gpa: int, data: bytes) -> None:
        """Within one page, which must be mapped."""
        self.emulator.write(self.frame(self.pages[gpa >> 12].frame) + gpa % PAGE_SIZE, data)

    def read_guest(self, gpa: int, size: int) -> bytes:
        return self.emulator.read(self.frame(self.pages[gpa >> 12].frame) + gpa % PAGE_SIZE, size)

    def guest_memory(self) -> bytes:
        """All guest frames."""
        return self.emulator.read(self.frame(0), (FRAME_COUNT - FIRST_GUEST_FRAME) * PAGE_SIZE)
