"""RUN that looks for the end before it sleeps, and a CPU that looks for a command before it halts."""

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from sidecar.layout import CommandPage, RaiseKind, SidecarCommand
from sidecar.layout.ioctl import Ioctl

from .device import Case, Node, Outcome, Results, claimed, counters, give

CPU = 2
LONGEST = 1000
"""Of both parameters, in microseconds."""
WAYS = {"neither": (0, 0), "driver": (LONGEST, 0), "cpu": (0, LONGEST), "both": (LONGEST, LONGEST)}
GAPS = 50
"""Pauses of different lengths, from none to double the time for which anybody looks."""
COUNTERS = ("commands", "requests", "faults", "timeouts")
PARAMETERS = Path("/sys/module/sidecar/parameters")


@contextlib.contextmanager
def looking(poll_us: int, halt_poll_us: int) -> Iterator[None]:
    """Driver and CPU look for so long."""
    values = {"poll_us": poll_us, "halt_poll_us": halt_poll_us}
    before = {name: (PARAMETERS / name).read_text() for name in values}
    try:
        for name, value in values.items():
            (PARAMETERS / name).write_text(str(value))
        yield
    finally:
        for name, text in before.items():
            (PARAMETERS / name).write_text(text)


def once(node: Node, page: mmap.mmap, number: int) -> bool:
    """One command: RUN, or START and read, or START and STOP and read. Was it done?"""
    struct.pack_into("<Q", page, int(CommandPage.sequence), number)
    struct.pack_into("<I", page, 0, SidecarCommand.NONE)
    said: list[Outcome | bool | list[int]] = []
    expected: list[Outcome | bool | list[int]] = [0]
    if number % 3:
        said.append(node.ask(Ioctl.RUN, CPU))
    else:
        if number % 2:
            give(page, RaiseKind.WAIT_FOR_STOP)
        said.append(node.ask(Ioctl.START, CPU))
        if number % 2:
            said.append(node.ask(Ioctl.STOP, CPU))
            expected.append(1)
        said += [node.readable(), node.read()]
        expected += [True, [CPU]]
    (completed,) = struct.unpack_from("<Q", page, int(CommandPage.completed_sequence))
    return said == expected and completed == number


def polls(rounds: str) -> Results:
    """By who looks: the numbers of commands that went wrong, and what the CPU has counted."""
    node = Node(os.O_NONBLOCK)
    (page,) = claimed(node, CPU)
    result: Results = {}
    for name, parameters in WAYS.items():
        with looking(*parameters):
            before = counters(CPU, *COUNTERS)
            wrong = []
            for number in range(1, int(rounds) + 1):
                if not once(node, page, number):
                    wrong.append(number)
                end = time.perf_counter() + 2e-6 * LONGEST * (number % GAPS) / GAPS
                while time.perf_counter() < end:
                    pass
            moved = [now - then for now, then in zip(counters(CPU, *COUNTERS), before, strict=True)]
        result[name] = {"wrong": wrong, **dict(zip(COUNTERS, moved, strict=True))}
    return result


CASES: dict[str, Case] = {"polls": polls}
