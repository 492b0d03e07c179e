"""Guest instructions, counted on every CPU by a plugin for QEMU: a figure that no load of the host changes.

    trace = Trace(directory)
    with LinuxSession(..., extra=trace.arguments) as session:
        with trace.noting(session.machine):
            ...
        count(trace.executed(), begin=..., end=..., here=0, there=1)

Two functions enclose what is measured; their addresses tell where one begins and ends.

Ref: trace_plugin.c for what is in the file.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import subprocess
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sidecar.bench.programs import compile_program
from sidecar.qemu.machine import Machine

LONGEST_LOOP = 100
FEWEST_ROUNDS = 16
NOW_AND_THEN = 8
"""A loop of somebody who waits: instructions from look to look at most, and rounds at least; and how many more some
rounds have, such as a PAUSE that does not follow every look."""

HEAD = struct.Struct("<4Q")
NOTE_BYTES = 8
NOTES = 1 << 24
CPU_SHIFT = 56
SIGN = 1 << 55

SOURCE = Path(__file__).resolve().parent / "trace_plugin.c"
LIBRARY = ("-shared", "-fPIC", "-fvisibility=hidden")


class Trace:
    """The plugin, compiled, and the file that it writes its notes into."""

    def __init__(self, directory: Path) -> None:
        self._library = compile_program(SOURCE, directory / "trace_plugin.so", *LIBRARY)
        self._file = directory / "notes"
        with self._file.open("wb") as file:
            file.truncate(HEAD.size + NOTES * NOTE_BYTES)

    @property
    def arguments(self) -> tuple[str, ...]:
        """For QEMU."""
        return ("-plugin", f"file={self._library},notes={self._file}")

    @contextlib.contextmanager
    def noting(self, machine: Machine) -> Iterator[None]:
        """Notes what is executed within the block; forgets what was noted before."""
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[: 2 * NOTE_BYTES] = struct.pack("<2Q", 1, 0)
            machine.hmp("one-insn-per-tb on")
            try:
                yield
            finally:
                memory[:NOTE_BYTES] = bytes(NOTE_BYTES)
                machine.hmp("one-insn-per-tb off")

    def executed(self) -> Iterator[tuple[int, int]]:
        """(CPU, address) of every instruction that was noted, in their order."""
        with self._file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            _, used, room, _ = HEAD.unpack_from(memory)
            notes = memory[HEAD.size : HEAD.size + min(used, room) * NOTE_BYTES]
        return decode(notes)


def addresses(program: Path, *names: str) -> tuple[int, ...]:
    """The addresses of functions of a program."""
    said = subprocess.run(["nm", program], capture_output=True, text=True, timeout=60, check=True).stdout
    found = {words[-1]: int(words[0], 16) for words in map(str.split, said.splitlines()) if len(words) == 3}
    return tuple(found[name] for name in names)


def decode(notes: bytes) -> Iterator[tuple[int, int]]:
    """(CPU, address) of each note."""
    for (note,) in struct.iter_unpack("<Q", notes):
        address = note & ((1 << CPU_SHIFT) - 1)
        yield note >> CPU_SHIFT, address | 0xFF << CPU_SHIFT if address & SIGN else address


@dataclass(frozen=True, slots=True)
class Counted:
    """Instructions of one operation, on the CPU that asked and on the one that was asked; waiting is not in them."""

    here: int
    there: int

    @property
    def both(self) -> int:
        return self.here + self.there


def count(
    instructions: Iterable[tuple[int, int]], *, begin: int, end: int, here: int, there: int,
    works: Container[int] = (),
) -> list[Counted]:
    """Every operation from `begin` to `end` on the CPU `here`.

    What the CPU `there` executes until the next begin belongs to it too: it goes back to sleep. The last one is
    left out, whose end there is not known. CPUs that `works` has never wait in a loop: all that they do counts.
    """
    result: list[Counted] = []
    asked: list[int] = []
    theirs: list[int] = []
    within = seen = False
    for cpu, address in instructions:
        if cpu == there:
            theirs.append(address)
        elif cpu == here and address == begin:
            if seen:
                sides = ((here, asked), (there, theirs))
                result.append(Counted(*(len(done) if who in works else without_waiting(done) for who, done in sides)))
            asked, theirs, within, seen = [], [], True, True
        elif cpu == here and address == end:
            within = False
        elif cpu == here and within:
            asked.append(address)
    return result


def without_waiting(addresses: list[int]) -> int:
    """How many instructions, if a loop in which somebody only waits is gone through once.

    The loop is found by the address that is met most often; short ways from it back to it are rounds of the loop. A
    loop of few rounds is taken for work.
    """
    if not addresses:
        return 0
    address, _ = Counter(addresses).most_common(1)[0]
    places = [place for place, one in enumerate(addresses) if one == address]
    ways = [tuple(addresses[start:stop]) for start, stop in pairwise(places) if stop - start <= LONGEST_LOOP]
    usual, repeated = Counter(ways).most_common(1)[0] if ways else ((), 0)
    if repeated < FEWEST_ROUNDS:
        return len(addresses)
    return len(addresses) - sum(len(way) for way in ways if len(way) <= len(usual) + NOW_AND_THEN)
