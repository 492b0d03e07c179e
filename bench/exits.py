"""What exits of a guest cost on a CPU of the sidecar, and by Linux's own KVM on the CPU of the VMM.

Both run the guest of `exit_guest`, in one machine, by turns: an exit that the VMM handles, in a C program, and exits
that are finished below it, here by the sidecar and there within kvm-amd. Then the memory that a virtual processor
costs the kernel.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.bench import exit_guest, programs
from sidecar.bench.context import Context, Tell
from sidecar.bench.dispatch import Taken, look_for, parse
from sidecar.bench.exit_guest import Round
from sidecar.bench.figures import Aim, Figure, Group, Table, measured
from sidecar.bench.plot import BLUE, ORANGE, Bar, draw_bars
from sidecar.bench.trace import Counted, Trace, addresses, count
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import VP_PAGES
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession

WHICH: Which = "stable"
SMP = 4
HERE, COMMANDED = 0, 1
"""Linux's only CPU, which has the VMM and KVM's guest; the sidecar CPU that has the other guest."""

ROUNDS = 5
COUNT = 1000
LOOPS, LOOPED = 200, 40
"""Exits of a round of the guest that are finished below the VMM, and rounds."""
COUNTED = 30
POLL_US = 1000
GUESTS, PAGES, LOOKS = 3, 8192, 3
IMAGE = "/root/guest.img"
KIB = 1024

TEXT = f"""A guest in 64-bit mode, without Linux: on a CPU of the sidecar, asked by Linux on CPU {HERE} of {SMP}, and
by KVM (`kvm-amd` of the same Linux) on that CPU {HERE}, by turns. "To the VMM" is an OUT to a port of nobody's, from
one call of the VMM to the next; "polled" and "polled by both" are as with commands. The others are finished below it:
rounds of {LOOPS} CPUID (leaf 1) or RDMSR (EFER) and that OUT, whose time alone is taken off. Medians of {ROUNDS}
times {COUNT} exits and {LOOPED} rounds, with the quartiles; a ratio has the range of the {ROUNDS} times. Guest
instructions are counted as those of commands are, of all CPUs and the guest: the fewest of {COUNTED - 1}, which no
timer interrupt is in. TCG does not tell the next RIP, so KVM decodes each CPUID and RDMSR, and the sidecar looks at
it; on hardware that tells, neither does.

Memory: what Linux has less of (free pages, and those that CPUs keep) with {GUESTS} guests of one virtual processor, by
guest, without the guest's own memory: {PAGES * PAGE_SIZE >> 20} MiB in small pages, all of them touched by the guest.
The sidecar's nested tables are made at once for all, KVM's when a page is touched. What a sidecar CPU has without a
virtual processor is among "Memory per CPU"."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a guest is run. `python`: not by the C program, and its instructions are not counted."""

    name: str
    sidecars: bool = True
    poll_us: int = 0
    halt_poll_us: int = 0
    python: bool = False

    @property
    def where(self) -> str:
        """For the C program."""
        return f"/dev/sidecar0:{COMMANDED}" if self.sidecars else "kvm"


@dataclass(frozen=True, slots=True)
class Exit:
    """An exit; `loops` of it are made in a round, 0 for the OUT that ends each. `aim` is for the time, by KVM's."""

    name: str
    aim: float
    loops: int = 0
    kind: Round = Round.CPUID


BOTH = Way("sidecar, C, polled by both", poll_us=POLL_US, halt_poll_us=POLL_US)
POLLED, SLEEPING = Way("sidecar, C, polled", poll_us=POLL_US), Way("sidecar, C, sleeping")
PYTHON = Way("sidecar, Python, polled by both", poll_us=POLL_US, halt_poll_us=POLL_US, python=True)
KVM = Way("KVM, C", sidecars=False)
TO_VMM = Exit("to the VMM", 0.8)
CPUID, RDMSR = Exit("CPUID", 0.5, LOOPS, Round.CPUID), Exit("RDMSR", 0.5, LOOPS, Round.RDMSR)
TRIED = (
    *((TO_VMM, way) for way in (BOTH, POLLED, SLEEPING, KVM, PYTHON)),
    *((exit, way) for exit in (CPUID, RDMSR) for way in (SLEEPING, KVM)),
)
"""What is measured, in the order of each round: exits to the VMM come first, whose time is in the others' rounds."""

WHY = "The CPU with the guest has to be woken for each run, unless it looks itself; KVM's guest is on the VMM's CPU."

Tried = tuple[Exit, Way]


def measure(context: Context) -> Group:
    kernel = context.boots.kernel(WHICH)
    driver = programs.driver_of(kernel, tell=context.tell)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as scratch:
        directory = Path(scratch)
        program, script = programs.exits(directory)
        image = directory / Path(IMAGE).name
        image.write_bytes(exit_guest.image())
        trace = Trace(directory)
        context.tell(f"boot of Linux {kernel.version}, {SMP} CPUs, for exits")
        with LinuxSession(
            kernel=kernel, smp=SMP, driver=driver, copy_in=[program, script, image], accel="tcg",
            extra=trace.arguments,
        ) as session:  # fmt: skip
            session.load_driver()
            session.load_kvm()
            guest = Guest(session)
            times = guest.times(context.tell)
            context.tell("guest instructions")
            instructions = instructions_of(guest.counted(trace, program))
            memory = {way.name: guest.memory(way) for way in (SLEEPING, KVM)}
    bars = [_bar(tried, times[tried]) for tried in TRIED if tried[1] is not PYTHON]
    pictures = context.draw("exits.svg", draw_bars("An exit of a guest", "microseconds", bars))
    rows = tuple(_row(tried, times[tried], instructions.get(tried)) for tried in TRIED)
    table = Table(f"Linux {kernel.version}", ("exit", "way", "median", "quartiles", "instructions"), rows)
    figures = (*ratios(times, instructions), *_memory(memory))
    data = {"exits": dict(_data(times, instructions)), "memory": memory}
    return Group("exits", "Exits of a guest, beside KVM", figures, TEXT, tables=(table,), pictures=pictures, data=data)


class Guest:
    """The machine in which everything is tried: with the driver, KVM and our files."""

    def __init__(self, session: LinuxSession) -> None:
        self._session, self._guest = session, session.guest

    def times(self, tell: Tell) -> dict[Tried, list[Taken]]:
        """Of one exit each, by round."""
        taken: dict[Tried, list[Taken]] = {tried: [] for tried in TRIED}
        for number in range(ROUNDS):
            tell(f"exits, round {number + 1}")
            for exit, way in TRIED:
                found = parse(self._run(way, exit.loops, exit.kind, LOOPED if exit.loops else COUNT))
                if exit.loops:
                    found = one_of(found, taken[TO_VMM, way][-1], exit.loops)
                taken[exit, way].append(found)
        return taken

    def counted(self, trace: Trace, program: Path) -> dict[Tried, list[Counted]]:
        """Rounds with one exit, or none, that is finished below the VMM."""
        begin, end = addresses(program, "begin", "end")
        counted = {}
        for exit, way in TRIED:
            if way.python:
                continue
            with trace.noting(self._session.machine):
                self._run(way, min(exit.loops, 1), exit.kind, COUNTED)
            works = () if way.halt_poll_us else (COMMANDED if way.sidecars else HERE,)
            executed = trace.executed()
            counted[exit, way] = count(executed, begin=begin, end=end, here=HERE, there=COMMANDED, works=works)
        return counted

    def memory(self, way: Way) -> list[int]:
        """Bytes of the kernel's for a guest, some times, after a first time that takes other memory for later ones."""
        command = f"/root/exits memory {way.where} {IMAGE} {GUESTS} {PAGES}"
        return [int(self._guest.run(command).check().stdout) for _ in range(1 + LOOKS)][1:]

    def _run(self, way: Way, loops: int, kind: Round, times: int) -> str:
        if way.python:
            command = f"python3 /root/exits.py {COMMANDED} {times}"
        else:
            command = f"/root/exits time {way.where} {IMAGE} {times} {loops} {int(kind)}"
        look_for(self._guest, way.poll_us, way.halt_poll_us)
        return self._guest.run(f"taskset {1 << HERE:x} {command}").check().stdout


# --- arithmetic ---------------------------------------------------------------------------------------------------


def one_of(rounds: Taken, alone: Taken, loops: int) -> Taken:
    """One of the exits that were made in rounds, which alone take some time too."""
    times = (rounds.least, rounds.lower, rounds.median, rounds.upper, rounds.most)
    return Taken(*((time - alone.median) / loops for time in times))


def instructions_of(counted: dict[Tried, list[Counted]]) -> dict[Tried, int]:
    """The fewest of one exit each: to the VMM and back all of it, of the others what the CPU with the guest does more.

    An interrupt adds to the others: on a busy host, to most of them.
    """
    found = {}
    for (exit, way), each in counted.items():
        if not exit.loops:
            found[exit, way] = min(one.both for one in each)
            continue
        side = "there" if way.sidecars else "here"
        rounds, alone = (min(getattr(one, side) for one in some) for some in (each, counted[TO_VMM, way]))
        found[exit, way] = rounds - alone
    return found


def ratios(times: dict[Tried, list[Taken]], instructions: dict[Tried, int]) -> list[Figure]:
    """What ours cost by KVM's."""
    figures = []
    for exit, way in TRIED:
        if not way.sidecars or way.python:
            continue
        aim = Aim(f"at most {exit.aim}", exit.aim, why=WHY) if way is not SLEEPING or exit.loops else None
        name = f"{exit.name}, {way.name}, by KVM's"
        each = [ours.median / theirs.median for ours, theirs in zip(times[exit, way], times[exit, KVM], strict=True)]
        spread = f"{min(each):.2f} to {max(each):.2f}, {len(each)} rounds"
        figures.append(Figure(f"{name}, in time", f"{statistics.median(each):.2f}", spread, aim, tuple(each), "1"))
        ratio = instructions[exit, way] / instructions[exit, KVM]
        figures.append(Figure(f"{name}, in guest instructions", f"{ratio:.2f}", "", None, (ratio,), "1"))
    return figures


# --- what is shown ------------------------------------------------------------------------------------------------


def _memory(found: dict[str, list[int]]) -> list[Figure]:
    figures = [Figure("pages that a virtual processor has for itself", f"{VP_PAGES * PAGE_SIZE // KIB} KiB")]
    for way in (SLEEPING, KVM):
        name = f"memory for a guest of {PAGES * PAGE_SIZE >> 20} MiB, {'sidecar' if way.sidecars else 'KVM'}"
        figures.append(measured(name, [number / KIB for number in found[way.name]], "KiB", 0))
    return figures


def _data(times: dict[Tried, list[Taken]], instructions: dict[Tried, int]) -> Iterator[tuple[str, object]]:
    for exit, way in TRIED:
        medians = [one.median for one in times[exit, way]]
        yield f"{exit.name}: {way.name}", {"ns": medians, "instructions": instructions.get((exit, way))}


def _range(taken: Sequence[Taken]) -> tuple[float, float, float]:
    """Median, lower and upper quartile in microseconds."""
    middle = statistics.median(one.median for one in taken)
    return middle / 1000, min(one.lower for one in taken) / 1000, max(one.upper for one in taken) / 1000


def _bar(tried: Tried, taken: Sequence[Taken]) -> Bar:
    exit, way = tried
    middle, low, high = _range(taken)
    return Bar(f"{exit.name}: {way.name}", middle, low, high, f"{middle:.1f}", BLUE if way.sidecars else ORANGE)


def _row(tried: Tried, taken: Sequence[Taken], instructions: int | None) -> tuple[str, ...]:
    exit, way = tried
    middle, low, high = _range(taken)
    shown = "" if instructions is None else str(instructions)
    return (exit.name, way.name, f"{middle:.1f} us", f"{low:.1f} to {high:.1f}", shown)
