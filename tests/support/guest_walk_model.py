"""A guest's page tables read by the manual, apart from the kernel's walker: the judge of TRANSLATE_GVA.

    guest = GuestModel(cr0=..., cr3=..., cr4=..., efer=..., read=..., nested=...)
    guest.translate(0x401000, HvTranslateFlags.VALIDATE_WRITE)

Ref: SDM vol. 3A, 4.3 to 4.8; AMD64 APM vol. 2, 5.2 to 5.6; TLFS, HvCallTranslateVirtualAddress.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.layout.hv import HvTranslateFlags as Flags
from sidecar.layout.hv import HvTranslateResult as Result
from sidecar.layout.x86 import Cr0, Cr4, Efer, Pte, Rflags

PAGE_FAULT, GENERAL_PROTECTION = 14, 13
WRITE_BACK = 6


@dataclass(frozen=True, slots=True)
class Level:
    """A step of a walk: `number` 1 is the table of 4 KiB pages."""

    number: int
    shift: int
    index_bits: int


LEVELS_64 = tuple(Level(n, 12 + 9 * (n - 1), 9) for n in (5, 4, 3, 2, 1))
LEVELS_32 = (Level(2, 22, 10), Level(1, 12, 10))


@dataclass(frozen=True, slots=True)
class Access:
    """What the nested tables allow on a page."""

    writable: bool
    executable: bool


@dataclass(slots=True)
class Translation:
    """`level` and `gpa` as in the command's answer; `event` vector, error code and address; `marks` new entries."""

    result: Result
    gpa: int = 0
    level: int = 0
    cache_type: int = WRITE_BACK
    event: tuple[int, int, int] | None = None
    marks: dict[int, int] = field(default_factory=dict)


class Ended(Exception):
    """The walk ends here."""

    def __init__(self, translation: Translation) -> None:
        super().__init__(translation.result.name)
        self.translation = translation


@dataclass(frozen=True, slots=True)
class GuestModel:
    """Registers that matter, and memory: `read` gives an entry's bytes, `nested` what is allowed there."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    rflags: int
    cpl: int
    pat: int
    address_bits: int
    read: Callable[[int, int], bytes]
    nested: Callable[[int], Access | None]

    @property
    def long(self) -> bool:
        return bool(self.efer & Efer.LMA)

    @property
    def pae(self) -> bool:
        return bool(self.cr4 & Cr4.PAE)

    def levels(self) -> tuple[Level, ...]:
        if not self.pae:
            return LEVELS_32
        if not self.long:
            return LEVELS_64[2:]
        return LEVELS_64 if self.cr4 & Cr4.LA57 else LEVELS_64[1:]

    def translate(self, linear: int, flags: int) -> Translation:
        try:
            return self._translate(linear, flags)
        except Ended as ended:
            return ended.translation

    def _translate(self, linear: int, flags: int) -> Translation:
        if not self.cr0 & Cr0.PG:
            return self._final(Translation(Result.SUCCESS, linear & 0xFFFFFFFF), flags)
        if not self.long:
            linear &= 0xFFFFFFFF
        levels = self.levels()
        width = levels[0].shift + levels[0].index_bits
        if self.long and linear not in (linear & (1 << width - 1) - 1, linear | (1 << 64) - (1 << width - 1)):
            event = (GENERAL_PROTECTION, 0, 0)
            raise Ended(Translation(Result.PAGE_NOT_PRESENT, 0, levels[0].number, event=event))
        used, found = self._walk(levels, linear, flags)
        self._check_rights(found, [entry for _, _, entry, counts in used if counts], linear, flags)
        if flags & Flags.SET_PAGE_TABLE_BITS:
            self._mark(used, found, flags)
        return self._final(found, flags)

    def _walk(
        self, levels: tuple[Level, ...], linear: int, flags: int
    ) -> tuple[list[tuple[int, int, int, bool]], Translation]:
        """The entries used as level, address, value and whether it has rights; and where it leads."""
        used: list[tuple[int, int, int, bool]] = []
        size = 8 if self.pae else 4
        table = self.cr3 & ((1 << 52) - 1 & -4096 if self.long else 0xFFFFFFE0 if self.pae else 0xFFFFF000)
        for level in levels:
            address = table + (linear >> level.shift) % (1 << level.index_bits) * size
            if self.nested(address >> 12) is None:
                raise Ended(Translation(Result.GPA_UNMAPPED, address, level.number))
            entry = int.from_bytes(self.read(address, size), "little")
            if not entry & Pte.PRESENT:
                raise Ended(self._fault(Result.PAGE_NOT_PRESENT, address, level.number, linear, flags, 0))
            large = self._large(level, entry)
            if entry & self._reserved(level, large):
                raise Ended(self._fault(Result.INVALID_PAGE_TABLE_FLAGS, address, level.number, linear, flags, 9))
            used.append((level.number, address, entry, not self._is_pdpte_of_pae(level)))
            if level.number == 1 or large:
                return used, Translation(Result.SUCCESS, *self._page(level, entry, linear))
            table = entry & (1 << 52) - 1 & -4096
        raise AssertionError("level 1 ends every walk")

    def _is_pdpte_of_pae(self, level: Level) -> bool:
        return self.pae and not self.long and level.number == 3

    def _large(self, level: Level, entry: int) -> bool:
        if not entry & Pte.LARGE or level.number == 1:
            return False
        if not self.pae:
            return bool(self.cr4 & Cr4.PSE)
        return level.number == 2 or (level.number == 3 and self.long)

    def _reserved(self, level: Level, large: bool) -> int:
        absent = (1 << 52) - (1 << self.address_bits)
        if not self.pae:
            return (absent >> 32 << 13 & 0x1FE000) | 1 << 21 if large else 0
        reserved = absent | (0 if self.efer & Efer.NXE else int(Pte.NX))
        if not self.long:
            reserved |= (1 << 63) - (1 << 52)
        if self._is_pdpte_of_pae(level):
            return reserved | Pte.NX | Pte.WRITE | Pte.USER | Pte.ACCESSED | Pte.DIRTY | Pte.LARGE | 1 << 8
        if level.number >= 4:
            reserved |= Pte.LARGE
        return reserved | ((1 << level.shift) - (1 << 13) if large else 0)

    def _page(self, level: Level, entry: int, linear: int) -> tuple[int, int, int]:
        """Guest-physical address, level 0, cache type."""
        within = (1 << level.shift) - 1
        base = entry & (1 << 52) - 1 & ~within
        if level.shift == 22:
            base |= (entry >> 13 & 0xFF) << 32
        pat_bit = entry >> (7 if level.number == 1 else 12) & 1
        index = pat_bit << 2 | (entry >> 4 & 1) << 1 | entry >> 3 & 1
        kind = self.pat >> 8 * index & 7
        return base | linear & within, 0, 0 if kind == 7 else kind

    # --- rights ---------------------------------------------------------------------------------------------------

    def _modes(self, flags: int) -> tuple[bool, bool]:
        """Checked as supervisor, as user."""
        if flags & Flags.PRIVILEGE_EXEMPT:
            return True, False
        chosen = bool(flags & Flags.SUPERVISOR_ACCESS), bool(flags & Flags.USER_ACCESS)
        return chosen if any(chosen) else (self.cpl != 3, self.cpl == 3)

    def _check_rights(self, found: Translation, entries: list[int], linear: int, flags: int) -> None:
        read, write, execute = (
            bool(flags & flag) for flag in (Flags.VALIDATE_READ, Flags.VALIDATE_WRITE, Flags.VALIDATE_EXECUTE)
        )
        may_write = all(entry & Pte.WRITE for entry in entries)
        may_user = all(entry & Pte.USER for entry in entries)
        never_execute = self.pae and any(entry & Pte.NX for entry in entries)
        exempt = bool(flags & Flags.PRIVILEGE_EXEMPT)
        supervisor, user = self._modes(flags)
        no_smap = bool(flags & Flags.OVERRIDE_SMAP) or (self.rflags & Rflags.AC and not flags & Flags.ENFORCE_SMAP)
        refused = (
            (write and not may_write and (user or self.cr0 & Cr0.WP))
            or (execute and never_execute)
            or (user and not may_user and (read or write or execute))
            or (supervisor and may_user and not exempt and execute and self.cr4 & Cr4.SMEP)
            or (supervisor and may_user and not exempt and (read or write) and self.cr4 & Cr4.SMAP and not no_smap)
        )
        if refused:
            fault = self._fault(Result.PRIVILEGE_VIOLATION, found.gpa, 0, linear, flags, 1)
            fault.cache_type = found.cache_type
            raise Ended(fault)

    def _fault(self, result: Result, gpa: int, level: int, linear: int, flags: int, code: int) -> Translation:
        if flags & Flags.VALIDATE_WRITE:
            code |= 2
        if self._modes(flags)[1]:
            code |= 4
        only_execute = flags & 7 == Flags.VALIDATE_EXECUTE
        if only_execute and (self.cr4 & Cr4.SMEP or (self.pae and self.efer & Efer.NXE)):
            code |= 16
        return Translation(result, gpa, level, event=(PAGE_FAULT, code, linear))

    # --- what it leaves -------------------------------------------------------------------------------------------

    def _mark(self, used: list[tuple[int, int, int, bool]], found: Translation, flags: int) -> None:
        for place, (number, address, entry, has_bits) in enumerate(used):
            if not has_bits:
                continue
            last = place == len(used) - 1
            marked = entry | Pte.ACCESSED | (Pte.DIRTY if last and flags & Flags.VALIDATE_WRITE else 0)
            if marked == entry:
                continue
            allowed = self.nested(address >> 12)
            assert allowed is not None
            if not allowed.writable:
                refused = Translation(Result.GPA_NO_WRITE_ACCESS, address, number, found.cache_type)
                refused.marks = found.marks
                raise Ended(refused)
            found.marks[address] = marked

    def _final(self, found: Translation, flags: int) -> Translation:
        allowed = self.nested(found.gpa >> 12)
        if allowed is None:
            found.result = Result.GPA_UNMAPPED
        elif flags & Flags.VALIDATE_EXECUTE and not allowed.executable:
            found.result = Result.GPA_NO_READ_ACCESS
        elif flags & Flags.VALIDATE_WRITE and not allowed.writable:
            found.result = Result.GPA_NO_WRITE_ACCESS
        return found
