"""What GET_VP_REGISTERS and SET_VP_REGISTERS must answer, by the layouts' register table: the judge of the kernel.

    >>> model = RegisterModel()
    >>> model.answer(SET, [(0x50005, 1), (0x50006, 1)]).sentence
    'command 3: register 0x50006 is not known'
    >>> hex(model.values[0x50005])
    '0x401'

Without a virtual processor it knows the registers that exist without one; `give_vp` tells it the others' values.
HvX64RegisterTsc is its own kind of thing: it moves, so nobody compares it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.layout import MAX_REGISTERS, VP_REGISTERS, HvStatus, SidecarCommand
from sidecar.layout.hv_registers import HvRegisterName
from sidecar.layout.register_table import REGISTERS, Register, RegisterRule
from sidecar.layout.x86 import Cr0, Efer

TABLE = {register.number: register for register in VP_REGISTERS}
ROWS = {row.number: row for row in REGISTERS}
NUMBERS = tuple(TABLE)
VP_NUMBERS = tuple(row.number for row in REGISTERS if row.needs_vp and row.rule is not RegisterRule.TSC)
WRITABLE = tuple(register.number for register in VP_REGISTERS if register.writable)
READ_ONLY = tuple(register.number for register in VP_REGISTERS if not register.writable)
MASK_64 = (1 << 64) - 1

GET, SET = SidecarCommand.GET_VP_REGISTERS, SidecarCommand.SET_VP_REGISTERS
CR0, EFER = int(HvRegisterName.HvX64RegisterCr0), int(HvRegisterName.HvX64RegisterEfer)
NO_VP = "this CPU was given no virtual processor"
Pairs = Sequence[tuple[int, int]]
"""Register number and value of 128 bits."""


class Refused(Exception):
    """The command ends here with this sentence and status."""

    def __init__(self, sentence: str, status: HvStatus = HvStatus.INVALID_REGISTER_VALUE) -> None:
        super().__init__(sentence)
        self.sentence, self.status = sentence, status


@dataclass(frozen=True)
class Answer:
    """`values` are the registers that were read or stored before the end; `sentence` is None if all were."""

    values: list[int]
    sentence: str | None
    status: HvStatus


class RegisterModel:
    """The registers of one virtual processor, as they are after an arrival."""

    def __init__(self) -> None:
        self.values = {register.number: register.reset for register in VP_REGISTERS}
        self.xcr0_mask = 0

    def give_vp(self, values: Mapping[int, int], *, xcr0_mask: int) -> None:
        """From now on there is a virtual processor, with these values and these state components."""
        self.values |= values
        self.xcr0_mask = xcr0_mask

    def answer(self, command: int, pairs: Pairs, *, count: int | None = None, target_vtl: int = 0) -> Answer:
        """GET or SET; the first bad register ends it, those before it are done."""
        values: list[int] = []
        try:
            self._check_head(command, len(pairs) if count is None else count, target_vtl)
            for number, value in pairs:
                values.append(self._one(command, number, value))
        except Refused as refused:
            return Answer(values, refused.sentence, refused.status)
        return Answer(values, None, HvStatus.SUCCESS)

    def _check_head(self, command: int, count: int, target_vtl: int) -> None:
        if not 1 <= count <= MAX_REGISTERS:
            raise Refused(f"command {command:d}: count {count}, expected 1 to 31", HvStatus.INVALID_PARAMETER)
        if target_vtl:
            raise Refused(f"command {command:d}: target_vtl {target_vtl}, expected 0", HvStatus.INVALID_PARAMETER)

    def _one(self, command: int, number: int, value: int) -> int:
        if number not in ROWS:
            raise Refused(f"command {command:d}: register {number:#x} is not known", HvStatus.INVALID_PARAMETER)
        if number not in self.values:
            raise Refused(f"command {command:d}: {NO_VP}", HvStatus.INVALID_VP_STATE)
        if command == SET:
            self.values[number] = self._stored(ROWS[number], value)
            if number in (CR0, EFER):
                self._follow_mode()
            return value
        return self.values[number]

    def _follow_mode(self) -> None:
        long = self.values[EFER] & Efer.LME and self.values[CR0] & Cr0.PG
        self.values[EFER] = self.values[EFER] & ~Efer.LMA | (Efer.LMA if long else 0)

    def _stored(self, row: Register, value: int) -> int:
        """What the register holds after a SET of `value`. Raises Refused."""
        where = f"command {SET:d}: register {row.number:#x}"
        low, high = value & MASK_64, value >> 64
        if not row.writable:
            raise Refused(f"{where} is read-only")
        if high and not row.wide:
            raise Refused(f"{where} has 64 bits, its high half must be 0 and is {high:#x}")
        if bad := low & ~row.writable & MASK_64:
            raise Refused(f"{where}: bits {bad:#x} must be 0")
        if bad := high & ~(row.writable >> 64):
            raise Refused(f"{where}: bits {bad:#x} of the high half must be 0")
        value |= row.fixed
        low |= row.fixed
        if reason := self._reason(row.rule, low, high):
            shown = high if row.rule is RegisterRule.TABLE else low
            raise Refused(f"{where}: {shown:#x} {reason}")
        return value

    def _reason(self, rule: RegisterRule, low: int, high: int) -> str | None:
        """Why a value is wrong although its bits may be given."""
        match rule:
            case RegisterRule.CANONICAL | RegisterRule.SEGMENT | RegisterRule.STACK_SEGMENT | RegisterRule.TABLE:
                address = high if rule is RegisterRule.TABLE else low
                return None if address >> 56 in (0, 0xFF) else "is not canonical"
            case RegisterRule.CR0 if low & Cr0.PG and not low & Cr0.PE:
                return "has PG without PE"
            case RegisterRule.CR0 if low & Cr0.NW and not low & Cr0.CD:
                return "has NW without CD"
            case RegisterRule.PAT if any(kind in (2, 3) for kind in low.to_bytes(8, "little")):
                return "has a memory type that does not exist"
            case RegisterRule.XCR0 if not self._components_fit(low):
                return "has state components that cannot be together or do not exist"
            case RegisterRule.PENDING_INTERRUPTION | RegisterRule.PENDING_EVENT if not _deliverable(rule, low, high):
                return "is no event that can be delivered"
        return None

    def _components_fit(self, value: int) -> bool:
        """Ref: SDM vol. 1, 13.3."""
        sse, avx, mpx, avx512 = 1 << 1, 1 << 2, 3 << 3, 7 << 5
        return (
            bool(value & 1)
            and not value & ~self.xcr0_mask
            and (not value & avx or bool(value & sse))
            and value & mpx in (0, mpx)
            and value & avx512 in (0, avx512)
            and (not value & avx512 or bool(value & avx))
        )


def _deliverable(rule: RegisterRule, low: int, high: int) -> bool:
    """HvPendingInterruption or HvPendingEvent."""
    if not low & 1:
        return True
    kind, is_exception = low >> 1 & 7, (low >> 16 & 0xFFFF) < 32 and low >> 16 & 0xFFFF != 2
    if rule is RegisterRule.PENDING_INTERRUPTION:
        return kind in (0, 2, 4) or (kind in (3, 5, 6) and is_exception)
    if kind == 5:
        return low >> 16 == 0 and high == 0
    return kind == 0 and is_exception and not low & 0xFE00
