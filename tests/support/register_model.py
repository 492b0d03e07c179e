"""What GET_VP_REGISTERS and SET_VP_REGISTERS must answer, by the layouts' register table: the judge of the kernel.

    >>> model = RegisterModel()
    >>> model.answer(SET, [(0x50005, 1), (0x50006, 1)]).sentence
    'command 3: register 0x50006 is not known'
    >>> hex(model.values[0x50005])
    '0x401'
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.layout import MAX_REGISTERS, VP_REGISTERS, HvStatus, SidecarCommand

TABLE = {register.number: register for register in VP_REGISTERS}
NUMBERS = tuple(TABLE)
WRITABLE = tuple(register.number for register in VP_REGISTERS if register.writable)
READ_ONLY = tuple(register.number for register in VP_REGISTERS if not register.writable)
MASK_64 = (1 << 64) - 1

GET, SET = SidecarCommand.GET_VP_REGISTERS, SidecarCommand.SET_VP_REGISTERS
Pairs = Sequence[tuple[int, int]]
"""Register number and value of 128 bits."""


class Refused(Exception):
    """The command ends here with this sentence and status."""

    def __init__(self, sentence: str, status: HvStatus) -> None:
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
        if number not in self.values:
            raise Refused(f"command {command:d}: register {number:#x} is not known", HvStatus.INVALID_PARAMETER)
        if command == SET:
            self.values[number] = _stored(number, value)
            return value
        return self.values[number]


def _stored(number: int, value: int) -> int:
    """What the register holds after a SET of `value`. Raises Refused."""
    register, low, high = TABLE[number], value & MASK_64, value >> 64
    where = f"command {SET:d}: register {number:#x}"
    if not register.writable:
        raise Refused(f"{where} is read-only", HvStatus.INVALID_REGISTER_VALUE)
    if high:
        sentence = f"{where} has 64 bits, its high half must be 0 and is {high:#x}"
        raise Refused(sentence, HvStatus.INVALID_REGISTER_VALUE)
    if bad := low & ~register.writable:
        raise Refused(f"{where}: bits {bad:#x} must be 0", HvStatus.INVALID_REGISTER_VALUE)
    return low | register.reset
