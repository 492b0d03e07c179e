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

    def get(self, pairs: Pairs, *, count: int | None = None, target_vtl: int = 0) -> list[int]:
        """The values that the answer has. Raises Refused."""
        self._check_head(GET, len(pairs) if count is None else count, target_vtl)
        return [self._value(GET, number) for number, _ in pairs]

    def set(self, pairs: Pairs, *, count: int | None = None, target_vtl: int = 0) -> None:
        """Stores them. Raises Refused at the first bad one; those before it are stored."""
        self._check_head(SET, len(pairs) if count is None else count, target_vtl)
        for number, value in pairs:
            self._value(SET, number)
            self.values[number] = self._stored(number, value)

    def _check_head(self, command: int, count: int, target_vtl: int) -> None:
        if not 1 <= count <= MAX_REGISTERS:
            raise Refused(f"command {command}: count {count}, expected 1 to 31", HvStatus.INVALID_PARAMETER)
        if target_vtl:
            raise Refused(f"command {command}: target_vtl {target_vtl}, expected 0", HvStatus.INVALID_PARAMETER)

    def _value(self, command: int, number: int) -> int:
        try:
            return self.values[number]
        except KeyError:
            sentence = f"command {command:d}: register {number:#x} is not known"
            raise Refused(sentence, HvStatus.INVALID_PARAMETER) from None

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
