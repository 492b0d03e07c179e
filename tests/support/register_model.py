"""What GET_VP_REGISTERS and SET_VP_REGISTERS must answer, by the layouts' register table: the judge of the kernel.

    >>> model = RegisterModel()
    >>> model.set([(0x50005, 1)])
    >>> hex(model.values[0x50005])
    '0x401'
"""

from collections.abc import Sequence

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
    """The command is answered with this sentence and status."""

    def __init__(self, sentence: str, status: HvStatus) -> None:
        super().__init__(sentence)
        self.sentence, self.status = sentence, status


class RegisterModel:
    """The registers of one virtual processor, as they are after an arrival."""

    def __init__(self) -> None:
        self.values = {register.number: register.reset for register in VP_REGISTERS}

    def answer(
        self, command: int, pairs: Pairs, *, count: int | None = None, target_vtl: int = 0
    ) -> list[int] | Refused:
        """The values that stand in the answer; or how it is refused, with the registers before the bad one done."""
        try:
            self._check_head(command, len(pairs) if count is None else count, target_vtl)
            return [self._one(command, number, value) for number, value in pairs]
        except Refused as refused:
            return refused

    def set(self, pairs: Pairs) -> None:
        """A SET that must be accepted."""
        if isinstance(refused := self.answer(SET, pairs), Refused):
            raise refused

    def _check_head(self, command: int, count: int, target_vtl: int) -> None:
        if not 1 <= count <= MAX_REGISTERS:
            raise Refused(f"command {command:d}: count {count}, expected 1 to 31", HvStatus.INVALID_PARAMETER)
        if target_vtl:
            raise Refused(f"command {command:d}: target_vtl {target_vtl}, expected 0", HvStatus.INVALID_PARAMETER)

    def _one(self, command: int, number: int, value: int) -> int:
        if number not in self.values:
            raise Refused(f"command {command:d}: register {number:#x} is not known", HvStatus.INVALID_PARAMETER)
        if command == GET:
            return self.values[number]
        self.values[number] = self._stored(number, value)
        return value

    def _stored(self, number: int, value: int) -> int:
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
