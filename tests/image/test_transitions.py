"""The machine code changes status bytes as the table in layout/control.py says: every move of the sidecar's, no other.

Which statuses a locked exchange goes from and to is read from the bytes: the constants that EAX and ECX can hold there.
An exchange whose old value was read from memory goes to FAULTED; the code before it lets REMOVED and FAULTED alone.
"""

import re

from sidecar.builder import image
from sidecar.layout import TRANSITIONS, CpuStatus
from sidecar.layout.control import Party
from tests.support.control_flow import ControlFlow, Values

LINKED = image.kernel().linked
FLOW = ControlFlow(LINKED)
OF_THE_BOOT_CPU = {step.routine for step in FLOW.reachable("entry")}
STORE = re.compile(r"mov +byte ptr \[.*\], CpuStatus\.(\w+)")
NOT_FAULTED_AGAIN = {CpuStatus.REMOVED, CpuStatus.FAULTED}

Move = tuple[CpuStatus, CpuStatus, Party]


def party(routine: str) -> Party:
    return Party.SIDECAR_BSP if routine in OF_THE_BOOT_CPU else Party.SIDECAR_CPU


def exchanges() -> set[Move]:
    """(old, new, party) of every exchange of a byte."""
    found = set()
    for routine in sorted({line.routine for line in LINKED.lines if "cmpxchg byte" in line.canonical}):
        values = FLOW.values(routine, ("rax", "rcx"))
        for line in LINKED.lines:
            if line.routine == routine and "cmpxchg byte" in line.canonical:
                assert line.canonical.startswith("lock "), f"{routine}: '{line.source}' is not locked"
                olds, news = values[line.vaddr]
                found |= {(old, new, party(routine)) for new in statuses(news) for old in olds_of(olds, new)}
    return found


def statuses(values: Values) -> set[CpuStatus]:
    assert values is not None, "the new status is not a constant"
    return {CpuStatus(value) for value in values}


def olds_of(values: Values, new: CpuStatus) -> set[CpuStatus]:
    if values is not None:
        return statuses(values)
    assert new is CpuStatus.FAULTED, f"an exchange from a status that was read goes to {new.name}"
    return set(CpuStatus) - NOT_FAULTED_AGAIN


def stores() -> set[Move]:
    """Plain stores of a status: only where the page was cleared just before, so the old one is REMOVED."""
    found = [(line.routine, STORE.fullmatch(line.source)) for line in LINKED.lines]
    return {(CpuStatus.REMOVED, CpuStatus[match[1]], party(routine)) for routine, match in found if match}


def of_the_sidecar(primitive: str) -> set[Move]:
    moves = {(one.old, one.new, one.party) for one in TRANSITIONS if one.primitive == primitive}
    return {move for move in moves if move[2] is not Party.DRIVER}


def test_every_exchange_is_in_the_table_and_the_table_is_complete() -> None:
    assert exchanges() == of_the_sidecar("cmpxchg")


def test_every_store_is_in_the_table_and_the_table_is_complete() -> None:
    assert stores() == of_the_sidecar("store")
