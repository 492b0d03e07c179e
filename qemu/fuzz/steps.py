"""What a driver may do to one CPU, and what none should: a step is an action, a CPU and a number, and nothing else.

The same seed gives the same steps, whatever the machine does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sidecar.layout import CpuStatus, RaiseKind
from sidecar.layout.command import VP_REGISTERS


class Action(StrEnum):
    """In the words of the driver's role; `argument` of the step in brackets."""

    NONE = "none"
    """An empty command."""
    SET = "set"
    """Store a register (random bits: register and value come out of them)."""
    GET = "get"
    """Read every register."""
    SET_RESERVED = "set-reserved"
    """Store a register with a bit that may not be given (random bits)."""
    UNKNOWN = "unknown"
    """A command that does not exist (its number)."""
    BAD_COUNT = "bad-count"
    """GET with a count that is too large (the count)."""
    GARBAGE = "garbage"
    """GET or SET of random bytes (seed of the bytes)."""
    CANCEL = "cancel"
    """A command that only STOP ends, and STOP."""
    STOP_IDLE = "stop-idle"
    """STOP while nothing runs."""
    FAULT = "fault"
    """A command that faults (RaiseKind)."""
    ABANDON = "abandon"
    """A command that never ends, and INIT-SIPI."""
    RESTART = "restart"
    """INIT-SIPI of a CPU that is idle or faulted."""
    REMOVE = "remove"
    """REMOVE, or FAULTED to REMOVED."""
    GIVE_BACK = "give-back"
    """Return of a removed CPU."""
    REQUEST = "request"
    """Request interrupts for nothing (how many)."""
    STRAY = "stray"
    """An interrupt that is nobody's (vector)."""
    NMI = "nmi"
    """A non-maskable interrupt."""
    STATUS = "status"
    """An idle CPU's status byte overwritten with what no driver stores there (the byte)."""


@dataclass(frozen=True, slots=True)
class Step:
    """`action:cpu:argument`, the form in which a reproducer is printed and read."""

    action: Action
    cpu: int
    argument: int = 0

    def __str__(self) -> str:
        return f"{self.action}:{self.cpu}:{self.argument:#x}"

    @classmethod
    def parse(cls, text: str) -> Step:
        """Raises ValueError.

        >>> Step.parse("stray:2:0x40")
        Step(action=<Action.STRAY: 'stray'>, cpu=2, argument=64)
        """
        action, cpu, argument = text.split(":")
        return cls(Action(action), int(cpu), int(argument, 0))


WRITABLE = tuple(register for register in VP_REGISTERS if register.writable)
LIMITED = tuple(register for register in WRITABLE if register.writable != (1 << 64) - 1)

FAULTS = (
    RaiseKind.DIVIDE_ERROR, RaiseKind.DEBUG, RaiseKind.BREAKPOINT, RaiseKind.INVALID_OPCODE,
    RaiseKind.DEVICE_NOT_AVAILABLE, RaiseKind.DOUBLE_FAULT, RaiseKind.SEGMENT_NOT_PRESENT, RaiseKind.STACK_FAULT,
    RaiseKind.GENERAL_PROTECTION, RaiseKind.PAGE_FAULT,
)  # fmt: skip

WRONG_STATUSES = tuple(value for value in range(256) if value not in set(CpuStatus))
STRAY_VECTORS = range(0x40, 0xF0)

WEIGHTS: dict[Action, int] = {
    Action.NONE: 12, Action.SET: 12, Action.GET: 12, Action.SET_RESERVED: 4, Action.UNKNOWN: 4, Action.BAD_COUNT: 4,
    Action.GARBAGE: 6, Action.CANCEL: 8, Action.STOP_IDLE: 3, Action.FAULT: 6, Action.ABANDON: 2, Action.RESTART: 3,
    Action.REMOVE: 3, Action.GIVE_BACK: 5, Action.REQUEST: 4, Action.STRAY: 6, Action.NMI: 2, Action.STATUS: 2,
}  # fmt: skip


def argument(action: Action, dice: random.Random) -> int:
    """A number that the action can use."""
    match action:
        case Action.SET | Action.SET_RESERVED | Action.GARBAGE:
            return dice.getrandbits(72)
        case Action.UNKNOWN:
            return dice.choice((5, 0xFF, 0xFFFFFFFF, dice.randrange(0x200, 1 << 32)))
        case Action.BAD_COUNT:
            return dice.choice((0, 32, 0xFFFF, dice.randrange(32, 1 << 16)))
        case Action.FAULT:
            return dice.choice(FAULTS)
        case Action.REQUEST:
            return dice.randint(1, 4)
        case Action.STRAY:
            return dice.choice(STRAY_VECTORS)
        case Action.STATUS:
            return dice.choice(WRONG_STATUSES)
    return 0


def steps(seed: int, cpus: list[int]) -> Iterator[Step]:
    """Without end."""
    dice = random.Random(seed)
    actions, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        (action,) = dice.choices(actions, weights)
        yield Step(action, dice.choice(cpus), argument(action, dice))
