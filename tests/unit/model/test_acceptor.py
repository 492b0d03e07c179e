"""The acceptor: the ordinary ways through the protocol are accepted, and each with one thing changed is refused."""

import pytest

from sidecar.layout.control import CpuStatus
from sidecar.layout.x86 import Icr
from sidecar.protocol.model.acceptor import Refused, accept
from sidecar.protocol.model.trace import Event, Look, Move, Sent, Told

S = CpuStatus


def look(status: CpuStatus, arrivals: int = 1, commands: int = 0) -> Look:
    return Look(1, status, arrivals, commands)


def move(old: CpuStatus, new: CpuStatus, found: CpuStatus | None = None) -> Move:
    return Move(1, old, new, old if found is None else found)


REQUEST, INIT, STARTUP, TOLD = Sent(1, Icr.FIXED), Sent(1, Icr.INIT), Sent(1, Icr.STARTUP), Told(1)
IDLE = look(S.IDLE)

COMMAND: list[Event] = [IDLE, move(S.IDLE, S.RUN), REQUEST, look(S.RUN), look(S.IDLE, commands=1), TOLD]
CANCEL: list[Event] = [
    IDLE, move(S.IDLE, S.RUN), REQUEST, move(S.RUN, S.STOP), REQUEST, look(S.STOP, commands=1),
    look(S.IDLE, commands=1), TOLD,
]
FAULT: list[Event] = [
    IDLE, move(S.IDLE, S.RUN), REQUEST, look(S.FAULTED, commands=1), TOLD, INIT, move(S.FAULTED, S.RUN), STARTUP,
    look(S.RUN, commands=1), look(S.IDLE, arrivals=2, commands=1),
]
CONVERSION: list[Event] = [
    IDLE, move(S.IDLE, S.REMOVE), REQUEST, look(S.REMOVE), look(S.REMOVED), INIT, move(S.REMOVED, S.RUN), STARTUP,
    look(S.IDLE, arrivals=2), move(S.IDLE, S.RUN), REQUEST, look(S.IDLE, arrivals=2, commands=1), TOLD,
]
TIME_OUT: list[Event] = [
    IDLE, move(S.IDLE, S.RUN), REQUEST, look(S.RUN, commands=1), INIT, look(S.RUN, commands=1), STARTUP,
    look(S.IDLE, arrivals=2, commands=1),
]
WAYS = {"command": COMMAND, "cancel": CANCEL, "fault": FAULT, "conversion": CONVERSION, "time-out": TIME_OUT}


@pytest.mark.parametrize("way", WAYS)
def test_accepted(way: str) -> None:
    accept(WAYS[way])


def test_cpus_are_followed_apart() -> None:
    other: list[Event] = [
        Look(2, S.REMOVED, 0, 0), Sent(2, Icr.INIT), Move(2, S.REMOVED, S.RUN, S.REMOVED), Sent(2, Icr.STARTUP),
        Look(2, S.IDLE, 1, 0),
    ]
    both: list[Event] = []
    for pair in zip(COMMAND, other, strict=False):
        both += pair
    accept(both)


def test_a_cancel_that_comes_too_late_and_its_request() -> None:
    accept([
        IDLE, move(S.IDLE, S.RUN), REQUEST, move(S.RUN, S.STOP, found=S.IDLE), look(S.IDLE, commands=1), TOLD,
        move(S.IDLE, S.RUN), REQUEST, look(S.IDLE, commands=2), TOLD,
    ])


def test_a_command_may_end_before_its_init_arrives() -> None:
    accept([
        IDLE, move(S.IDLE, S.RUN), REQUEST, look(S.RUN), INIT, look(S.IDLE, commands=1), move(S.IDLE, S.RUN), STARTUP,
        look(S.IDLE, arrivals=2, commands=1),
    ])


WITHOUT = [
    pytest.param(way, number, id=f"{way} without event {number}")
    for way, numbers in {
        "command": (1, 2), "cancel": (1,), "fault": (1, 2, 5, 6, 7), "conversion": (1, 2, 5, 6, 7, 9),
        "time-out": (2, 4, 6),
    }.items()
    for number in numbers
]


@pytest.mark.parametrize(("way", "number"), WITHOUT)
def test_with_an_event_left_out(way: str, number: int) -> None:
    trace = WAYS[way]
    with pytest.raises(Refused):
        accept(trace[:number] + trace[number + 1 :])


CHANGED: dict[str, tuple[list[Event], int, Event]] = {
    "told before the end": (COMMAND, 3, TOLD),
    "ended before the request": (COMMAND, 2, look(S.IDLE, commands=1)),
    "ended without an execution": (COMMAND, 4, IDLE),
    "executed twice": (COMMAND, 4, look(S.IDLE, commands=2)),
    "cancel executed nothing": (CANCEL, 6, IDLE),
    "started by a store over RUN": (COMMAND, 1, move(S.RUN, S.RUN)),
    "the driver ends the command": (COMMAND, 3, move(S.RUN, S.IDLE)),
    "removed while it runs": (COMMAND, 3, move(S.RUN, S.REMOVE)),
    "removed without being asked": (COMMAND, 4, look(S.REMOVED, commands=1)),
    "idle after REMOVE": (CONVERSION, 4, IDLE),
    "back without an arrival": (CONVERSION, 8, IDLE),
    "a status that there is not": (COMMAND, 3, Look(1, 77, 1, 0)),
}


@pytest.mark.parametrize("change", CHANGED)
def test_with_an_event_changed(change: str) -> None:
    trace, number, event = CHANGED[change]
    with pytest.raises(Refused):
        accept([*trace[:number], event, *trace[number + 1 :]])


def test_the_message() -> None:
    with pytest.raises(Refused) as caught:
        accept([IDLE, move(S.IDLE, S.RUN), look(S.IDLE, commands=1)])
    assert caught.value.number == 2
    assert str(caught.value) == (
        "event 2, Look(cpu=1, status=<CpuStatus.IDLE: 1>, arrivals=1, commands=1): the protocol does not allow it "
        "to a CPU that is FAULTED, halted until INIT; RUN, halted until a request"
    )


@pytest.mark.parametrize("first", [REQUEST, look(S.RUN)])
def test_a_trace_begins_with_a_cpu_at_rest(first: Event) -> None:
    with pytest.raises(Refused, match="event 0, "):
        accept([first])
