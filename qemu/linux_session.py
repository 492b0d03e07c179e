"""A machine with stock Linux in it, beside the sidecar or without: what `sidecar boot` and the boot tests work with.

    with LinuxSession(kernel=kernel_package("stable"), smp=8, driver=build_module(...)) as session:
        session.load_driver()
        session.guest.run("sidecarctl ping").check()
        session.found.nodes, session.machine.registers(1), session.timeline

With the sidecar, QEMU starts our shim, and kernel, initramfs and Linux's command line are in the bundle. A baseline is
the same machine and the same files without us: QEMU's own loader starts the kernel, with all CPUs or with one.

`with` returns when user space is reached and the agent runs.
"""

import contextlib
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sidecar.builder import image
from sidecar.errors import UserError
from sidecar.layout.boot import BundleKind
from sidecar.protocol.discovery import discover
from sidecar.protocol.machine import Discovered
from sidecar.qemu.accelerator import Request, choose_accelerator
from sidecar.qemu.command_line import MEMORY_BYTES_PER_CPU, NODE_ALIGNMENT, MachineSpec
from sidecar.qemu.executable import find_qemu
from sidecar.qemu.linux.agent_client import Guest, Result
from sidecar.qemu.linux.cache import Tell, silent
from sidecar.qemu.linux.console import Console
from sidecar.qemu.linux.initramfs import initramfs
from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux.timeline import Stamp, timeline
from sidecar.qemu.linux.userland import guest_root
from sidecar.qemu.machine import Machine
from sidecar.qemu.session import BootFailed, last_lines
from sidecar.qemu.shim_lines import fall_back_reason, fatal_line, notes
from sidecar.qemu.sizes import GIB, format_size
from sidecar.qemu.waiting import Progress, unwatched, wait_until

Baseline = Literal["all", "one"]
BASELINES: tuple[Baseline, ...] = ("all", "one")

START_SECONDS = 60.0
SECONDS_PER_CPU = 0.5
SECONDS_PER_LINUX_CPU = 6.0
"""When Linux starts them all: it took 121 s for 64 CPUs on two cores under TCG."""

AGENT_SECONDS = 60.0
DRIVER_SECONDS = 60.0
ONLINE_SECONDS = 60.0
LOOK_SECONDS = 0.005
ONLINE_LOOK_SECONDS = 0.3

COMMAND_LINE = ("console=ttyS0", "panic=-1", "no_timer_check")
"""A panic ends the machine: QEMU is told not to reboot. Linux counts timer interrupts for 40 ms early in its boot, and
panics if there are too few, as on a host so busy that QEMU does not get to send them; under KVM it does not count.
"""

SIDECAR_WORD = "sidecar"
"""Words on the command line that begin so go to the shim, which leaves those that it does not know to Linux."""

_USER_SPACE = re.compile(r"^guest: time 0x([0-9a-f]{16})\s*$", re.MULTILINE)


class TooSlow(BootFailed):
    """User space was not reached in the time that was given; nothing else has gone wrong."""


class NoDriver(UserError):
    """The driver was asked for in a guest that has none."""


class LinuxSession:
    """One booted machine; `with` boots and ends it. Raises BootFailed, MachineDied, WaitedInVain, UserError.

    `found` is None where the sidecar is not used: in a baseline, or where the shim had the reason `fallback`.
    `backing` is the guest's way to the sidecar's CPUs: `driver` or `no-module`, None before attach() or load_driver().
    `driver` is a .ko file, `copy_in` are files for /root. An `interactive` machine has its console at `terminal`.
    """

    machine: Machine
    guest: Guest
    terminal: Console | None
    found: Discovered | None
    timeline: tuple[Stamp, ...]
    user_space_seconds: float  # from QEMU's start, by the host's clock
    user_space_tsc: int  # the guest's TSC then
    backing: Literal["driver", "no-module"] | None = None

    def __init__(
        self,
        *,
        kernel: LinuxKernel,
        smp: int,
        numa: int = 1,
        memory_bytes: int | None = None,
        accel: Request = "auto",
        append: str = "",
        baseline: Baseline | None = None,
        driver: Path | None = None,
        copy_in: Sequence[Path] = (),
        interactive: bool = False,
        tcg_thread: Literal["multi", "single"] = "multi",
        directory: Path | None = None,
        qmp_socket: Path | None = None,
        extra: tuple[str, ...] = (),
        seconds: float | None = None,
        progress: Progress = unwatched,
        tell: Tell = silent,
    ) -> None:
        self.kernel, self.smp, self.numa, self.baseline, self.driver = kernel, smp, numa, baseline, driver
        self.memory_bytes = memory_bytes or default_memory_bytes(smp, numa)
        per_cpu = SECONDS_PER_LINUX_CPU if baseline == "all" else SECONDS_PER_CPU
        self.seconds = seconds if seconds is not None else START_SECONDS + smp * per_cpu
        self.qemu = find_qemu()
        self.accelerator = choose_accelerator(accel, self.qemu)
        self._append, self._copy_in, self._interactive = append, tuple(copy_in), interactive
        self._tcg_thread: Literal["multi", "single"] = tcg_thread
        self._directory, self._qmp_socket, self._extra = directory, qmp_socket, extra
        self._progress, self._tell = progress, tell
        self._owned = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            spec = self._spec(stack)
            started = time.monotonic()
            self.machine = stack.enter_context(Machine(spec, directory=self._directory, qemu=self.qemu))
            self.guest = Guest(self.machine)
            self.terminal = Console(self.machine.terminal) if self.machine.terminal else None
            tsc = self.user_space_tsc = self._wait_user_space(started)
            self.found = discover(self.machine.ram) if self.uses_sidecar else None
            self.timeline = timeline(self.found, self.console, user_space=self.user_space_seconds, tsc=tsc)
            self.guest.wait_ready(seconds=AGENT_SECONDS)
            self._owned = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.__exit__(kind, error, trace)

    @property
    def console(self) -> str:
        """What shim and Linux have printed."""
        return self.machine.console

    @property
    def notes(self) -> list[str]:
        """What the shim noted for its user though the boot went on."""
        return notes(self.console)

    @property
    def fallback(self) -> str | None:
        """Why the shim did without the sidecar."""
        return fall_back_reason(self.console)

    @property
    def uses_sidecar(self) -> bool:
        return self.baseline is None and self.fallback is None

    def require_mode(self) -> None:
        """Raises BootFailed if the sidecar was wanted and the shim did without it."""
        if self.fallback is not None:
            raise BootFailed(f"the shim did not use the sidecar: {self.fallback}")

    @property
    def mode(self) -> str:
        """What is compared: `sidecar`, also where the shim fell back; `baseline one` or `baseline all`."""
        return f"baseline {self.baseline}" if self.baseline else "sidecar"

    @property
    def description(self) -> str:
        """The machine apart from its mode, as one line."""
        size = f"{self.smp} CPUs, {self.numa} NUMA nodes, {format_size(self.memory_bytes)}"
        return f"{self.kernel.version}, {size}, {self.accelerator.kind}, '{' '.join(self._append.split())}'"

    def load_driver(self, *parameters: str, seconds: float = DRIVER_SECONDS) -> Result:
        """modprobe of the driver in the guest. Raises NoDriver, GuestError if it refuses, WaitedInVain, MachineDied."""
        if self.driver is None:
            raise NoDriver("this guest has no driver: it was booted without one")
        result = self.guest.run(["modprobe", self.driver.stem, *parameters], seconds).check()
        self.backing = "driver"
        return result

    def load_kvm(self) -> None:
        """Gives the guest Linux's own hypervisor beside the sidecar, /dev/kvm, on a CPU with SVM. Raises GuestError."""
        self.guest.run(["modprobe", "kvm_amd"], DRIVER_SECONDS).check()
        self.guest.run(["test", "-c", "/dev/kvm"]).check()

    def unload_kvm(self) -> None:
        """Raises GuestError while a program has it open."""
        self.guest.run(["modprobe", "-r", "kvm_amd"], DRIVER_SECONDS).check()

    def attach(self) -> None:
        """Gives the guest its way to the sidecar's CPUs: the driver if it has one, else Linux's own module `msr`.

        The driver brings the CPUs that are Linux's online, and without it this does; they are waited for. Raises
        GuestError, WaitedInVain, MachineDied.
        """
        if self.driver is not None:
            self.load_driver()
        else:
            self.guest.run(["modprobe", "msr", "allow_writes=on"]).check()
            self.backing = "no-module"
            for number in self.linux_cpus - self.online_cpus():
                self.guest.run(f"echo 1 > /sys/devices/system/cpu/cpu{number}/online").check()
        self.wait_linux_cpus()

    @property
    def linux_cpus(self) -> set[int]:
        """The CPUs that the sidecar does not start: the first of each node, and those left to Linux."""
        return {cpu.linux_number for cpu in self.found.cpus if not cpu.is_sidecars} if self.found else set()

    def wait_linux_cpus(self) -> None:
        """Until every CPU that the sidecar does not start is online. Raises WaitedInVain, GuestError, MachineDied."""
        wanted = self.linux_cpus
        numbers = ", ".join(map(str, sorted(wanted)))
        wait_until(
            lambda: wanted <= self.online_cpus(),
            seconds=ONLINE_SECONDS + len(wanted) * SECONDS_PER_LINUX_CPU,
            what=f"Linux's own CPUs ({numbers}) to come online",
            interval=ONLINE_LOOK_SECONDS,
        )

    def online_cpus(self) -> set[int]:
        """The CPUs that Linux runs on now."""
        return cpu_list(self.guest.read("/sys/devices/system/cpu/online").decode())

    # --- the machine -----------------------------------------------------------------------------------------------

    @property
    def _words(self) -> list[str]:
        """The user's words for Linux's command line."""
        return [word for word in self._append.split() if not word.startswith(SIDECAR_WORD)]

    def _spec(self, stack: contextlib.ExitStack) -> MachineSpec:
        """The machine, with the files that QEMU loads written where it finds them."""
        where = self._directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-images-")))
        where.mkdir(parents=True, exist_ok=True)
        archive = initramfs(
            self.kernel, guest=guest_root(tell=self._tell), driver=self.driver, copy_in=self._copy_in, tell=self._tell
        )
        kernel, initrd, append = self._payload(where, archive)
        spec = MachineSpec(
            accelerator=self.accelerator,
            kernel=kernel,
            initrd=initrd,
            append=append,
            smp=self.smp,
            numa=self.numa,
            memory_bytes=self.memory_bytes,
            tcg_thread=self._tcg_thread,
            iommu=True,
            interactive=self._interactive,
            qmp_socket=self._qmp_socket,
            extra=self._extra,
        )
        if self._qmp_socket is not None:
            stack.callback(self._qmp_socket.unlink, missing_ok=True)
        return spec

    def _payload(self, where: Path, archive: bytes) -> tuple[Path, Path, str]:
        """What QEMU gets as -kernel, -initrd and -append."""
        words = [*COMMAND_LINE, *self._words]
        if self.baseline is not None:
            initrd = where / "initramfs.img"
            initrd.write_bytes(archive)
            return self.kernel.image, initrd, " ".join([*words, *(["maxcpus=1"] if self.baseline == "one" else [])])
        shim, bundle = where / "shim.elf", where / "bundle.img"
        shim.write_bytes(image.shim().elf)
        parts = {
            BundleKind.SIDECAR: image.kernel().elf,
            BundleKind.LINUX: self.kernel.image.read_bytes(),
            BundleKind.INITRAMFS: archive,
            BundleKind.COMMAND_LINE: " ".join(words).encode(),
        }
        bundle.write_bytes(image.bundle(parts))
        return shim, bundle, " ".join(word for word in self._append.split() if word.startswith(SIDECAR_WORD))

    def _wait_user_space(self, started: float) -> int:
        """Until /init runs; the TSC then. Raises BootFailed, MachineDied."""
        while True:
            alive = self.machine.alive  # asked first: its last words are then on the console
            console = self.console
            waited = time.monotonic() - started
            if match := _USER_SPACE.search(console):
                self.user_space_seconds = waited
                return int(match.group(1), 16)
            if fatal := fatal_line(console):
                raise BootFailed(fatal)
            if not alive:
                self.machine.check()
            if waited > self.seconds:
                raise TooSlow(
                    f"Linux {self.kernel.version} on {self.smp} CPUs did not reach user space within "
                    f"{self.seconds:g} s (--timeout S waits longer); the console ends:\n{last_lines(console)}",
                )
            self._progress(waited)
            time.sleep(LOOK_SECONDS)


def default_memory_bytes(smp: int, numa: int = 1) -> int:
    """1 GiB and some per CPU, rounded up so that every NUMA node gets the same."""
    unit = numa * NODE_ALIGNMENT
    return -(-(GIB + smp * MEMORY_BYTES_PER_CPU) // unit) * unit


def cpu_list(text: str) -> set[int]:
    """The numbers of a list as Linux writes it: "0,2-4" is {0, 2, 3, 4}."""
    ranges = (part.partition("-") for part in text.strip().split(",") if part)
    return {number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)}
