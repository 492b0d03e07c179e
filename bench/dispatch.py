"""What an empty command costs from inside Linux, beside Linux's own ways to have another CPU do something.

From the kernel by sidecar_bench.ko, from C and Python by ioctl RUN; each with the driver looking for the end without
sleeping (its parameter poll_us) and without that. Against a call of an empty function on an idle online CPU, and
against threads that wake each other. All in one guest, by turns.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.bench import programs
from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group, Table
from sidecar.bench.plot import BLUE, ORANGE, Bar, draw_bars
from sidecar.bench.trace import Counted, Trace, addresses, count
from sidecar.qemu.linux.agent_client import Guest
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession

WHICH: Which = "stable"
SMP = 4
HERE, COMMANDED, LINUXS = 0, 1, 3
"""Linux's first CPU, which asks; a sidecar CPU; a CPU given to Linux, which idles."""

ROUNDS = 3
COUNT = 500
COUNTED = 60
GAP_US = 200
POLL_US = 1000
PINNED = f"taskset {1 << HERE:x}"
DEBUG = "/sys/kernel/debug/sidecar_bench"
PARAMETERS = "/sys/module/sidecar/parameters"

TEXT = f"""Linux on CPU {HERE} of {SMP} asks, {GAP_US} us after it was answered, in which it stays awake. "Sleeping":
who asks sleeps until the end, and the other CPU halts in between. "Polled": who asks looks for the end (the driver's
`poll_us`), and the other CPU halts. "Polled by both": that CPU looks for the next command too (`halt_poll_us`), so
nobody has to be woken. In Linux's own ways the other CPU halts. Medians of {ROUNDS} times {COUNT}, taken by turns in
one guest, with the quartiles. Guest instructions are counted on both CPUs by a plugin for QEMU, from the request to
its end and, on the CPU that was asked, until it sleeps again; rounds of a loop that only waits are left out; the
lower quartile of {COUNTED - 1}, which no timer interrupt is in. While they are counted the CPU that was asked is fast
compared with the other: a sleeping command then ends before its caller sleeps."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have another CPU do something, and be told of its end.

    `command` has {{count}} and {{gap}}; `poll_us` and `halt_poll_us` are the driver's parameters; `counted`: its
    instructions are, too.
    """

    name: str
    command: str
    there: int
    poll_us: int = 0
    halt_poll_us: int = 0
    module: bool = False
    counted: bool = True

    @property
    def sidecars(self) -> bool:
        return self.there == COMMANDED


@dataclass(frozen=True, slots=True)
class Taken:
    """What one look gave, in nanoseconds."""

    least: float
    lower: float
    median: float
    upper: float
    most: float


RUN_C = f"/root/dispatch run /dev/sidecar0 {COMMANDED} {{count}} {{gap}}"
RUN_PYTHON = f"python3 /root/dispatch.py {COMMANDED} {{count}} {{gap}}"
WAYS = (
    Way("sidecar, kernel, polled by both", f"cat {DEBUG}/run", COMMANDED, POLL_US, POLL_US, module=True),
    Way("sidecar, kernel, polled", f"cat {DEBUG}/run", COMMANDED, POLL_US, module=True),
    Way("sidecar, kernel, sleeping", f"cat {DEBUG}/run", COMMANDED, module=True),
    Way("smp_call_function_single", f"cat {DEBUG}/smp_call", LINUXS, module=True),
    Way("sidecar, C, polled by both", RUN_C, COMMANDED, POLL_US, POLL_US),
    Way("sidecar, C, polled", RUN_C, COMMANDED, POLL_US),
    Way("sidecar, C, sleeping", RUN_C, COMMANDED),
    Way("futex, there and back", f"/root/dispatch futex {HERE} {LINUXS} {{count}} {{gap}}", LINUXS),
    Way("eventfd, there and back", f"/root/dispatch eventfd {HERE} {LINUXS} {{count}} {{gap}}", LINUXS),
    Way("sidecar, Python, polled", RUN_PYTHON, COMMANDED, POLL_US, counted=False),
    Way("sidecar, Python, sleeping", RUN_PYTHON, COMMANDED, counted=False),
)
OURS, LINUXS_OWN = WAYS[:2], WAYS[3]
WAKE = "The other CPU halts in between, in Linux's call too: QEMU waking its thread takes most of either."
LOCK = "The driver takes its lock at the begin and at the end, so that nobody comes between; Linux's call takes none."
AIM, LENGTH_AIM = (Aim("at most 0.3", 0.3, why=why) for why in (WAKE, LOCK))


def measure(context: Context) -> Group:
    kernel = context.boots.kernel(WHICH)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as scratch:
        directory = Path(scratch)
        built = programs.build(kernel, directory, tell=context.tell)
        trace = Trace(directory)
        context.tell(f"boot of Linux {kernel.version}, {SMP} CPUs, for commands")
        with LinuxSession(
            kernel=kernel, smp=SMP, driver=built.driver, copy_in=built.copy_in, accel="tcg", extra=trace.arguments
        ) as session:
            guest = _Guest(session, trace, built.program, quick=context.chosen and not context.full)
            times = guest.times(context)
            instructions = guest.instructions(context)
    bars = [_bar(way, times[way.name]) for way in WAYS]
    pictures = context.draw("dispatch.svg", draw_bars("An empty command and its end", "microseconds", bars))
    rows = tuple(_row(way, times[way.name], instructions.get(way.name)) for way in WAYS)
    heads = ("way", "median", "quartiles", "instructions here", "there", "both")
    return Group(
        "dispatch", "An empty command from Linux", _ratios(times, instructions), TEXT,
        tables=(Table(f"Linux {kernel.version}", heads, rows),), pictures=pictures,
        data={way.name: {"ns": [one.median for one in times[way.name]],
                         "instructions": [(one.here, one.there) for one in instructions.get(way.name, ())]}
              for way in WAYS},
    )  # fmt: skip


class _Guest:
    """The machine in which all ways are tried. The module holds its CPU, so it is there only while it is used."""

    def __init__(self, session: LinuxSession, trace: Trace, program: Path, *, quick: bool) -> None:
        self._session, self._guest, self._trace = session, session.guest, trace
        self._count = COUNT // 10 if quick else COUNT
        session.load_driver()
        self._guest.run(["sidecarctl", "convert", str(LINUXS)]).check()
        self._program_marks = addresses(program, "begin", "end")

    def times(self, context: Context) -> dict[str, list[Taken]]:
        taken: dict[str, list[Taken]] = {way.name: [] for way in WAYS}
        for number in range(ROUNDS):
            context.tell(f"commands, round {number + 1}")
            for way in WAYS:
                self._prepare(way, self._count)
                taken[way.name].append(parse(self._run(way, self._count)))
                self._clear(way)
        return taken

    def instructions(self, context: Context) -> dict[str, list[Counted]]:
        counted = {}
        context.tell("guest instructions")
        for way in WAYS:
            if not way.counted:
                continue
            self._prepare(way, COUNTED)
            begin, end = self._module_marks() if way.module else self._program_marks
            with self._trace.noting(self._session.machine):
                self._run(way, COUNTED)
            self._clear(way)
            counted[way.name] = count(self._trace.executed(), begin=begin, end=end, here=HERE, there=way.there)
        return counted

    def _run(self, way: Way, times: int) -> str:
        return self._guest.run(f"{PINNED} {way.command.format(count=times, gap=GAP_US)}").check().stdout

    def _prepare(self, way: Way, times: int) -> None:
        look_for(self._guest, way.poll_us, way.halt_poll_us)
        if way.module:
            options = f"cpu={COMMANDED} linux_cpu={LINUXS} count={times} gap_us={GAP_US}"
            self._guest.run(f"insmod /root/{programs.BENCH_MODULE}.ko {options}").check()

    def _clear(self, way: Way) -> None:
        if way.module:
            self._guest.run(["rmmod", programs.BENCH_MODULE]).check()

    def _module_marks(self) -> tuple[int, int]:
        said = self._guest.run("grep ' sidecar_bench_[be]' /proc/kallsyms").check().stdout
        found = {words[2]: int(words[0], 16) for words in map(str.split, said.splitlines())}
        return found["sidecar_bench_begin"], found["sidecar_bench_end"]


def look_for(guest: Guest, poll_us: int, halt_poll_us: int) -> None:
    """From now on driver and CPU look for each other so long."""
    guest.run(f"echo {poll_us} > {PARAMETERS}/poll_us; echo {halt_poll_us} > {PARAMETERS}/halt_poll_us").check()


def parse(line: str) -> Taken:
    """The line that module and programs print. Raises ValueError for another one."""
    words = line.split()
    if len(words) != 5:
        raise ValueError(f"the guest printed {line!r} instead of five times")
    return Taken(*map(float, words))


# --- what is shown ------------------------------------------------------------------------------------------------


def _bar(way: Way, taken: list[Taken]) -> Bar:
    middle = _us(taken)
    low, high = min(one.lower for one in taken) / 1000, max(one.upper for one in taken) / 1000
    return Bar(way.name, middle, low, high, f"{middle:.1f}", BLUE if way.sidecars else ORANGE)


def _us(taken: list[Taken]) -> float:
    return statistics.median(one.median for one in taken) / 1000


def _row(way: Way, taken: list[Taken], counted: list[Counted] | None) -> tuple[str, ...]:
    low, high = min(one.lower for one in taken) / 1000, max(one.upper for one in taken) / 1000
    shown: tuple[str, ...] = ("", "", "")
    if counted:
        shown = tuple(str(usual([getattr(one, side) for one in counted])) for side in ("here", "there", "both"))
    return (way.name, f"{_us(taken):.1f} us", f"{low:.1f} to {high:.1f}", *shown)


def usual(numbers: Sequence[int]) -> int:
    """The lower quartile: most operations are met by no interrupt, and some are cut short."""
    return sorted(numbers)[len(numbers) // 4]


def _ratios(times: dict[str, list[Taken]], counted: dict[str, list[Counted]]) -> tuple[Figure, ...]:
    """What the polled commands cost by Linux's own call."""
    figures = []
    for way in OURS:
        name = f"{way.name}, by {LINUXS_OWN.name}"
        each = [one.median / other.median for one, other in zip(times[way.name], times[LINUXS_OWN.name], strict=True)]
        spread = f"{min(each):.2f} to {max(each):.2f}, {len(each)} rounds"
        figures.append(Figure(f"{name}, in time", f"{statistics.median(each):.2f}", spread, AIM, tuple(each), "1"))
        ours, theirs = counted.get(way.name), counted.get(LINUXS_OWN.name)
        if ours and theirs:
            ratio = usual([one.both for one in ours]) / usual([one.both for one in theirs])
            figures.append(Figure(f"{name}, in guest instructions", f"{ratio:.2f}", "", LENGTH_AIM, (ratio,), "1"))
    return tuple(figures)
