"""What spin searches: who takes part, what may go wrong around them, and which known defect is put back in.

A defect is a macro of the *.pml files. Each has stood in upstream's driver or in this one, or is what a fence or the
order of two instructions keeps away.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sidecar.layout.control import TRANSITIONS, CpuStatus, Party, Transition
from sidecar.protocol.model import table

BODIES = ("shared", "cpu", "driver", "client", "hotplug", "boot")

OUTSIDE = frozenset(
    row
    for row in TRANSITIONS
    if row.party is Party.DRIVER and row.new is CpuStatus.REMOVED and row.old is not CpuStatus.FAULTED
)
"""Rows that no scenario makes: Linux took the CPU while no driver was loaded, tests/boot/test_driver_attach.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`hostile`: faults, NMIs, commands that never end, lost STARTUPs, any number. `early`: time-outs at any time.

    `polls`: a RUN may look for its end itself for a while, with `quiet` set (the driver's parameter poll_us), and a CPU
    for its next command, with `polling` set (halt_poll_us).
    `cycles`: spin looks for ways on which steps are made for ever and no client and no conversion gets any further.
    """

    name: str
    cpus: int
    clients: int
    hostile: bool = False
    early: bool = False
    polls: bool = False
    boot: bool = False
    cycles: bool = False
    long: bool = False
    depth: int = 1_000_000

    @property
    def seconds(self) -> float:
        """What the search may take; far more than it does."""
        return 2400.0 if self.long else 240.0

    @property
    def defines(self) -> tuple[str, ...]:
        return (
            f"-DN={self.cpus}", f"-DCLIENTS={self.clients}", f"-DHOSTILE={self.hostile:d}", f"-DEARLY={self.early:d}",
            f"-DBOOT={self.boot:d}", f"-DPOLLS={self.polls:d}",
        )


ONE_CPU = Scenario(name="one-cpu", cpus=1, clients=1, polls=True)
HOSTILE = Scenario(name="hostile", cpus=1, clients=1, hostile=True, early=True, polls=True)
BOOT = Scenario(name="boot", cpus=1, clients=1, boot=True)
HOSTILE_BOOT = Scenario(name="hostile-boot", cpus=1, clients=1, hostile=True, boot=True)
ALWAYS_ENDS = Scenario(name="always-ends", cpus=1, clients=1, hostile=True, cycles=True, long=True)
TWO_CLIENTS = Scenario(name="two-clients", cpus=1, clients=2, hostile=True, long=True, depth=5_000_000)
TWO_CPUS = Scenario(name="two-cpus", cpus=2, clients=1, long=True, depth=9_000_000)

SHORT = (ONE_CPU, HOSTILE, BOOT)
LONG = (HOSTILE_BOOT, ALWAYS_ENDS, TWO_CLIENTS, TWO_CPUS)


class Defect(Enum):
    """What is put back into the model, and where spin finds it."""

    COMPLETION_BEFORE_START = (ONE_CPU, "ASYNC is published before RUN: a scan takes the IDLE before it for the end")
    REMOVAL_WAITS_FOR_THE_WRONG_VALUE = (ONE_CPU, "who removes waits until the status is not IDLE, instead of REMOVE")
    CANCEL_BEFORE_THE_FIRST_RUN_IS_LOST = (ONE_CPU, "a CPU that sees STOP without having seen RUN sleeps on")
    CANCEL_BEFORE_THE_FIRST_RUN_EXECUTES_NOTHING = (ONE_CPU, "such a CPU reports an end and leaves the command there")
    REQUEST_OVERTAKES_THE_STORE = (ONE_CPU, "no fence between RUN and the ICR write")
    REQUEST_AFTER_THE_LOCK = (ONE_CPU, "the request is sent when node->lock was let go: Linux may have the CPU by then")
    INTERRUPTS_OPEN_TOO_EARLY = (ONE_CPU, "a request between the look and HLT does not lead back to the look")
    QUIET_IS_READ_TOO_EARLY = (ONE_CPU, "a CPU reads `quiet` before it is idle: the driver stops looking in between")
    POLLING_IS_CLEARED_TOO_LATE = (ONE_CPU, "a CPU looks for the last time, and then says that it looks no more")
    POLLING_IS_READ_TOO_EARLY = (ONE_CPU, "the driver finds `polling` before RUN is visible to the CPU")
    RESTART_WITHOUT_INIT = (HOSTILE, "STARTUP alone, and RUN while the CPU's former life still goes on")
    RESTART_NEVER_GIVES_UP = (ALWAYS_ENDS, "a CPU that does not come back is sent INIT and STARTUP for ever")
    SECOND_INIT_WITHOUT_REVOKING = (BOOT, "a CPU becomes idle just before a second INIT, and arrives under its driver")

    def __init__(self, scenario: Scenario, why: str) -> None:
        self.scenario, self.why = scenario, why


def promela() -> str:
    """The whole model."""
    folder = Path(__file__).parent
    return "\n".join([table.text(), *((folder / f"{name}.pml").read_text(encoding="utf-8") for name in BODIES)])


def covered(numbers: set[int]) -> frozenset[Transition]:
    """The rows of the table with these numbers."""
    return frozenset(row for row in TRANSITIONS if table.number(row) in numbers)
