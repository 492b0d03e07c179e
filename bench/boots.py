"""Boots of Linux, each measured once and kept: several measurements are made of the same boots.

    sidecar   Linux beside the sidecar
    one       the same kernel and initramfs without the sidecar, maxcpus=1
    all       likewise, with all CPUs

From 128 CPUs on QEMU runs all of them in one thread: with a thread for each, they mostly wait for each other.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sidecar.layout.schema import PAGE_SIZE
from sidecar.qemu.accelerator import Request
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.cache import Tell
from sidecar.qemu.linux.kernels import LinuxKernel, Which, kernel_package
from sidecar.qemu.linux_session import Baseline, LinuxSession, TooSlow
from sidecar.qemu.waiting import WaitedInVain

Mode = Literal["sidecar", "one", "all"]
MODES: tuple[Mode, ...] = ("sidecar", "one", "all")
BASELINES: dict[Mode, Baseline | None] = {"sidecar": None, "one": "one", "all": "all"}

ONE_THREAD_FROM = 128
UNBOUNDED_SECONDS = 24 * 3600.0
MEASURED_ON: Request = "tcg"

_BRINGS_UP = re.compile(r"^\[ *(\d+\.\d+)\] smp: Bringing up secondary CPUs", re.MULTILINE)
_KEPT = re.compile(r"^ +count: +(\d+)$", re.MULTILINE)
_FREE = re.compile(r"^MemFree: +(\d+) kB", re.MULTILINE)
_BROUGHT_UP = re.compile(r"^\[ *(\d+\.\d+)\] smp: Brought up \d+ nodes?, (\d+) CPUs?", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One boot. `seconds` from QEMU's start to user space, None if that took longer than `bound`.

    `bring_up_ms` is how long Linux took to start its other CPUs, and `online` how many it then had, by its own log.
    The guest's TSC counts from QEMU's start; the sidecar's stamps are None in a baseline.
    """

    kernel: str
    smp: int
    mode: Mode
    bound: float
    seconds: float | None = None
    user_space_tsc: int | None = None
    bring_up_ms: float | None = None
    online: int | None = None
    free_kib: int | None = None
    tsc_khz: int | None = None
    shim_entry_tsc: int | None = None
    fan_out_ms: float | None = None
    sidecar_cpus: int | None = None

    @property
    def cost(self) -> float:
        """What to reckon with for the next boot of this kind, in seconds."""
        return self.bound if self.seconds is None else self.seconds + 2


class Boots:
    """All boots of this run, by kernel, CPUs and mode. Kernels are fetched when they are first needed."""

    def __init__(self, tell: Tell, *, boot: Callable[..., Boot] | None = None) -> None:
        self._tell = tell
        self._boot = boot or measure_boot
        self._kernels: dict[Which, LinuxKernel] = {}
        self._boots: dict[tuple[Which, int, Mode], list[Boot]] = {}

    def kernel(self, which: Which) -> LinuxKernel:
        if which not in self._kernels:
            self._kernels[which] = kernel_package(which, tell=self._tell)
        return self._kernels[which]

    def of(self, which: Which, smp: int, mode: Mode) -> list[Boot]:
        """Those that were measured."""
        return self._boots.setdefault((which, smp, mode), [])

    def measure(self, which: Which, smp: int, mode: Mode, *, bound: float = UNBOUNDED_SECONDS) -> Boot:
        """One more. Raises what the session raises, but for a boot that is too slow."""
        kernel = self.kernel(which)
        number = len(self.of(which, smp, mode)) + 1
        self._tell(f"boot {number} of Linux {kernel.version}, {smp} CPUs, {mode}")
        boot = self._boot(kernel, smp, mode, bound=bound)
        self.of(which, smp, mode).append(boot)
        return boot

    def some(
        self, which: Which, smp: int, mode: Mode, *, count: int = 1, bound: float = UNBOUNDED_SECONDS
    ) -> list[Boot]:
        """At least `count` boots, measured now as far as they are missing."""
        while len(self.of(which, smp, mode)) < count:
            self.measure(which, smp, mode, bound=bound)
        return self.of(which, smp, mode)

    def seconds(self, which: Which, smp: int, mode: Mode) -> list[float]:
        """Times to user space of those that reached it."""
        return [boot.seconds for boot in self.of(which, smp, mode) if boot.seconds is not None]


def measure_boot(kernel: LinuxKernel, smp: int, mode: Mode, *, bound: float) -> Boot:
    """Boots once and looks. Raises BootFailed, MachineDied, UserError; a boot that is too slow is a result."""
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as directory:
        session = LinuxSession(
            kernel=kernel, smp=smp, baseline=BASELINES[mode], accel=MEASURED_ON, seconds=bound,
            tcg_thread="single" if smp >= ONE_THREAD_FROM else "multi", directory=Path(directory),
        )  # fmt: skip
        boot = Boot(kernel=kernel.version, smp=smp, mode=mode, bound=bound)
        try:
            with session:
                return replace(reached(boot, session), free_kib=free_kib(session))
        except TooSlow:
            return with_linux_times(boot, session.console)
        except WaitedInVain:  # user space is there, but too slow to be talked to
            return reached(boot, session)


def reached(boot: Boot, session: LinuxSession) -> Boot:
    """With what a session tells whose user space was reached."""
    boot = replace(boot, seconds=session.user_space_seconds, user_space_tsc=session.user_space_tsc)
    found = getattr(session, "found", None)
    if found is not None:
        boot = replace(
            boot,
            tsc_khz=found.tsc_khz,
            shim_entry_tsc=found.shim_entry_tsc,
            fan_out_ms=(found.all_idle_tsc - found.first_init_tsc) / found.tsc_khz,
            sidecar_cpus=len(found.sidecar_cpus),
        )
    return with_linux_times(boot, session.console)


def with_linux_times(boot: Boot, console: str) -> Boot:
    """With how long Linux took to start its other CPUs, if it got that far."""
    begun, done = _BRINGS_UP.search(console), _BROUGHT_UP.search(console)
    if begun is None or done is None:
        return boot
    return replace(
        boot, bring_up_ms=(float(done.group(1)) - float(begun.group(1))) * 1000, online=int(done.group(2))
    )


def free_kib(session: LinuxSession) -> int:
    """Linux's free memory. Raises GuestError."""
    return free_in(session.guest.read("/proc/meminfo").decode(), session.guest.read("/proc/zoneinfo").decode())


def free_in(meminfo: str, zoneinfo: str) -> int:
    """KiB of free memory, with the pages that each CPU keeps for itself: with fewer CPUs each keeps more of them."""
    match = _FREE.search(meminfo)
    if match is None:
        raise GuestError("/proc/meminfo of the guest has no line MemFree")
    return int(match.group(1)) + sum(map(int, _KEPT.findall(zoneinfo))) * PAGE_SIZE // 1024
