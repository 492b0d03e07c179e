"""Does the protocol allow what was seen? The rows of layout/control.py, and the order in which they may happen.

A CPU's own steps are not in a trace: between two events it may have made any that the protocol allows. So all states
in which it can be are followed at once, and an event that none of them allows is an error. The places of a CPU and the
ways between them are those of the model's cpu.pml.

An interrupt arrives at any time after it was sent; an INIT has arrived when the driver goes on after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from sidecar.layout.control import TRANSITIONS, CpuStatus, Party, allowed
from sidecar.layout.x86 import Icr
from sidecar.protocol.model.trace import Event, Look, Move, Sent, Told

IN_COMMAND = (CpuStatus.RUN, CpuStatus.STOP)
MAY_ARRIVE = (*IN_COMMAND, CpuStatus.IDLE)


class Place(Enum):
    """Where a CPU is."""

    LOOKING = "at the top of the park loop"
    ASLEEP = "halted until a request"
    EXECUTING = "in a command"
    OFF = "after INIT"
    ARRIVING = "on its way through the trampoline"
    ARRIVED = "about to be idle for the first time"
    HALTED = "halted until INIT"


MAKES = {
    CpuStatus.IDLE: (Place.EXECUTING, Place.ARRIVED),
    CpuStatus.REMOVED: (Place.LOOKING,),
    CpuStatus.FAULTED: (Place.LOOKING, Place.ASLEEP, Place.EXECUTING, Place.ARRIVED),
}
"""Where a CPU makes its own moves to a status."""


class Refused(Exception):
    """The trace is not one of the protocol's; `number` is the event that cannot have been."""

    def __init__(self, number: int, event: Event, states: frozenset[State]) -> None:
        places = "; ".join(sorted({f"{state.status.name}, {state.place.value}" for state in states}))
        super().__init__(f"event {number}, {event}: the protocol does not allow it to a CPU that is {places}")
        self.number = number


@dataclass(frozen=True, slots=True)
class State:
    """One state in which a CPU may be; `commands` and `arrivals` are its counts, `ended` says that a command ended."""

    status: CpuStatus
    place: Place
    arrivals: int
    commands: int
    request: bool = False
    init: bool = False
    ended: bool = False


def accept(trace: Iterable[Event]) -> None:
    """Raises Refused. The first event of each CPU must be a look at a CPU that nothing runs on."""
    states: dict[int, frozenset[State]] = {}
    for number, event in enumerate(trace):
        before = states.get(event.cpu)
        if before is None:
            states[event.cpu] = _first(number, event)
            continue
        after = frozenset(_grown(_after(_grown(before), event)))
        if not after:
            raise Refused(number, event, _grown(before))
        states[event.cpu] = after


def _first(number: int, event: Event) -> frozenset[State]:
    if not isinstance(event, Look):
        raise Refused(number, event, frozenset())
    status = CpuStatus(event.status)
    place = Place.ASLEEP if status is CpuStatus.IDLE else Place.HALTED
    first = State(status, place, event.arrivals, event.commands)
    if status not in (CpuStatus.IDLE, CpuStatus.FAULTED, CpuStatus.REMOVED):
        raise Refused(number, event, frozenset((first,)))
    return frozenset((first,))


# --- the CPU's own steps ----------------------------------------------------------------------------------------------


def _grown(states: Iterable[State]) -> frozenset[State]:
    """All states that the CPU can reach from these by itself."""
    reached, new = set[State](), set(states)
    while new:
        reached |= new
        new = {step for state in new for step in _steps(state)} - reached
    return frozenset(reached)


def _steps(state: State) -> Iterator[State]:
    for row in TRANSITIONS:
        if row.party is Party.SIDECAR_CPU and row.old is state.status and state.place in MAKES[row.new]:
            yield _moved(state, row.new)
    if state.init:
        yield replace(state, place=Place.OFF, init=False, request=False)
    match state.place:
        case Place.LOOKING if state.status is CpuStatus.IDLE:
            yield replace(state, place=Place.ASLEEP)
        case Place.LOOKING if state.status in IN_COMMAND:
            yield replace(state, place=Place.EXECUTING, commands=state.commands + 1)
        case Place.LOOKING if state.status in (CpuStatus.REMOVED, CpuStatus.FAULTED):
            yield replace(state, place=Place.HALTED)
        case Place.ASLEEP if state.request:
            yield replace(state, place=Place.LOOKING, request=False)
        case Place.ARRIVING if state.status in MAY_ARRIVE:
            yield replace(state, place=Place.ARRIVED, arrivals=state.arrivals + 1)
        case Place.ARRIVING:
            yield replace(state, place=Place.HALTED)
        case Place.ARRIVED if state.status is CpuStatus.IDLE:
            yield replace(state, place=Place.LOOKING)


def _moved(state: State, new: CpuStatus) -> State:
    """After the CPU's own move to `new`."""
    place = Place.LOOKING if new is CpuStatus.IDLE else Place.HALTED
    return replace(state, status=new, place=place, ended=state.ended or state.status in IN_COMMAND)


# --- what the driver did or saw ---------------------------------------------------------------------------------------


def _after(states: frozenset[State], event: Event) -> Iterator[State]:
    """The states after the event, from those that allow it."""
    for state in states:
        match event:
            case Look(status=status):
                if state.status == status:
                    counts = (event.arrivals, event.commands)
                    yield from (later for later in _grown((state,)) if (later.arrivals, later.commands) == counts)
            case Move():
                yield from _driver_moved(state, event)
            case Sent(kind=Icr.INIT):
                yield replace(state, init=True)
            case Sent(kind=Icr.STARTUP) if not state.init:
                yield replace(state, place=Place.ARRIVING) if state.place is Place.OFF else state
            case Sent(kind=Icr.FIXED):
                yield replace(state, request=state.place is not Place.OFF)
            case Told():
                if state.ended and state.status not in IN_COMMAND:
                    yield replace(state, ended=False)


def _driver_moved(state: State, event: Move) -> Iterator[State]:
    if state.status != event.found or not allowed(CpuStatus(event.old), CpuStatus(event.new), Party.DRIVER):
        return
    if event.found != event.old:
        yield state
        return
    old, new = CpuStatus(event.old), CpuStatus(event.new)
    asks = (old, new) in ((CpuStatus.IDLE, CpuStatus.REMOVE), (CpuStatus.RUN, CpuStatus.STOP))
    starts = (old, new) == (CpuStatus.IDLE, CpuStatus.RUN) and state.place is not Place.OFF and not state.init
    if asks or starts:
        yield replace(state, status=new, ended=state.ended and not starts)
    elif state.place is Place.OFF:  # everything else would pull the status away under a CPU that acts on it
        yield replace(state, status=new)
