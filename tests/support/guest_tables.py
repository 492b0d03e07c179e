"""Random guests for the walker: a paging mode, a linear address and page tables that mostly lead somewhere.

    guest = RandomGuest(seed)
    guest.put(vp)                   registers and memory into the emulated CPU
    guest.model(vp)                 the judge over the same memory
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from sidecar.layout import PAGE_SIZE
from sidecar.layout.svm import Vmcb
from sidecar.layout.x86 import PAT_RESET_VALUE, Cr0, Cr4, Efer, Pte, Rflags
from tests.support.guest_walk_model import Access, GuestModel
from tests.support.vp_emulator import ADDRESS_BITS, VpEmulator

MODES: Final = ("none", "32", "pae", "4", "5")
LOW_PAGES: Final = tuple(range(1, 13))
HIGH_PAGES: Final = (0x40_0000 >> 12, 0x4000_0000 >> 12, 0xFFFF_F, 0x1_0020_0000 >> 12, 0x12_3456_7000 >> 12)
PATS: Final = (PAT_RESET_VALUE, 0x0706050401000007)


@dataclass
class RandomGuest:
    """What a seed gives; the same seed gives the same."""

    seed: int
    mode: str = ""
    registers: dict[str, int] = field(default_factory=dict)
    root: int = 0
    linear: int = 0

    def put(self, vp: VpEmulator) -> None:
        """Registers, guest pages and their nested rights, page tables."""
        random = Random(self.seed)
        vp.reset()
        for frame, page in enumerate((*LOW_PAGES, *HIGH_PAGES)):
            if random.random() < 0.93:
                kind = random.random()
                vp.nested(page << 12, frame, writable=kind > 0.08, executable=not 0.08 < kind < 0.25)
        self.registers = self._registers(random)
        for name, value in self.registers.items():
            vp.set("vp_vmcb", int(getattr(Vmcb, name)), value, 1 if name == "cpl" else 8)
        self.linear = self._linear(random)
        if self.mode != "none":
            self._tables(random, vp)

    def _registers(self, random: Random) -> dict[str, int]:
        self.mode = random.choice(MODES)

        def some(*bits: int) -> int:
            return sum(bit for bit in bits if random.random() < 0.5)

        cr0 = Cr0.PE | some(Cr0.WP) | (0 if self.mode == "none" else Cr0.PG)
        cr4 = some(Cr4.SMEP, Cr4.SMAP)
        efer = Efer.SVME | some(Efer.NXE)
        if self.mode in ("none", "32"):
            cr4 |= some(Cr4.PSE)
        else:
            cr4 |= Cr4.PAE | some(Cr4.PSE)
        if self.mode in ("4", "5"):
            efer |= Efer.LME | Efer.LMA
        if self.mode == "5":
            cr4 |= Cr4.LA57
        self.root = random.choice(LOW_PAGES) << 12
        low = random.choice((0, 0x18, 0x20, 0xFE0)) if self.mode == "pae" else random.choice((0, 0x18))
        return {
            "cr0": cr0, "cr4": cr4, "efer": efer, "cr3": self.root | low, "rflags": Rflags.FIXED | some(Rflags.AC),
            "cpl": random.choice((0, 3)), "g_pat": random.choice(PATS),
        }  # fmt: skip

    def _linear(self, random: Random) -> int:
        width = {"4": 48, "5": 57}.get(self.mode, 32)
        linear = random.getrandbits(width - 1)
        if random.random() < 0.5 and width > 32:
            linear |= (1 << 64) - (1 << width - 1)
        if self.mode == "none":
            linear = random.choice((*LOW_PAGES, *HIGH_PAGES, 0x7777)) << 12
        if random.random() < 0.05:
            linear = random.getrandbits(64)
        return linear & -PAGE_SIZE

    def _tables(self, random: Random, vp: VpEmulator) -> None:
        """An entry for every level of the address; tables may be one another."""
        levels = self.model(vp).levels()
        size = 4 if self.mode == "32" else 8
        linear = self.linear if self.mode in ("4", "5") else self.linear & 0xFFFFFFFF
        table = self.root | (self.registers["cr3"] & 0xFE0 if self.mode == "pae" else 0)
        for level in levels:
            address = table + (linear >> level.shift) % (1 << level.index_bits) * size
            page = random.choice(LOW_PAGES) if random.random() < 0.97 else 0x7777
            last = level.number == 1 or (level.number < 4 and random.random() < 0.15)
            if last and random.random() < 0.5:
                page = random.choice(HIGH_PAGES)
            entry = self._entry(random, level.number, page, large=last and level.number > 1)
            if address >> 12 in vp.pages:
                vp.write_guest(address, (entry & (1 << 8 * size) - 1).to_bytes(size, "little"))
            table = page << 12

    def _entry(self, random: Random, level: int, page: int, *, large: bool) -> int:
        pdpte_of_pae = self.mode == "pae" and level == 3
        address = page << 12
        if large:
            shift = 22 if self.mode == "32" else 12 + 9 * (level - 1)
            if self.mode == "32":
                address = address & 0xFFC00000 | (address >> 32 & 0xFF) << 13 | random.choice((0, 0, 0, 1 << 21))
            elif random.random() < 0.95:
                address &= -(1 << shift)
            address |= random.choice((0, 1 << 12))
        entry = address | (Pte.LARGE if large else 0)
        for bit, likely in (
            (Pte.PRESENT, 0.98), (Pte.WRITE, 0.85), (Pte.USER, 0.8), (Pte.ACCESSED, 0.5), (Pte.DIRTY, 0.5),
        ):  # fmt: skip
            entry |= bit if random.random() < (0.02 if pdpte_of_pae and bit != Pte.PRESENT else likely) else 0
        entry |= random.choice((0, Pte.PWT, Pte.PCD, Pte.PWT | Pte.PCD)) | random.choice((0, 1 << 9, 7 << 9))
        if level == 1 and random.random() < 0.3:
            entry |= Pte.LARGE  # PAT
        if random.random() < 0.04:
            entry |= 1 << random.randrange(64)
        if self.mode != "32" and random.random() < (0.02 if pdpte_of_pae else 0.08):
            entry |= Pte.NX
        return int(entry)

    def model(self, vp: VpEmulator) -> GuestModel:
        """The judge over what is in the emulated memory now."""

        def nested(page: int) -> Access | None:
            found = vp.pages.get(page)
            return Access(found.writable, found.executable) if found else None

        values = self.registers
        return GuestModel(
            cr0=values["cr0"], cr3=values["cr3"], cr4=values["cr4"], efer=values["efer"], rflags=values["rflags"],
            cpl=values["cpl"], pat=values["g_pat"], address_bits=ADDRESS_BITS, read=vp.read_guest, nested=nested,
        )  # fmt: skip
