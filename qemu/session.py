"""A machine booted in host-driven mode with its driver attached: what the commands and the boot tests work with.

    with Session(smp=4, tests=True) as session:
        session.cpus[1].none()
        session.driver.pages(1).diagnostic.boot.arrivals
        session.machine.registers(1)

Shim and sidecar are built in memory; no Linux is in the bundle, so the boot CPU runs the shim's relay.
"""

import contextlib
import select
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.builder import image
from sidecar.layout.boot import BundleKind
from sidecar.protocol.commands import Cpu
from sidecar.protocol.discovery import discover
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.machine import Discovered
from sidecar.qemu.accelerator import Accelerator, Request, choose_accelerator
from sidecar.qemu.command_line import MachineSpec
from sidecar.qemu.executable import Qemu, find_qemu
from sidecar.qemu.machine import Machine, MachineDied
from sidecar.qemu.relay_backing import RelayBacking
from sidecar.qemu.shim_lines import fall_back_reason, fatal_line, notes
from sidecar.qemu.waiting import Progress, unwatched

START_SECONDS = 30.0
SECONDS_PER_CPU = 0.2
"""QEMU itself needs up to 7 s for 255 CPUs on a busy host."""

END_SECONDS = 5.0
LOOK_SECONDS = 0.02
TESTS_OPTION = "sidecar.tests"


class BootFailed(Exception):
    """The machine did not come up; the message has the line that says why, or the console's last lines."""


class FellBack(Exception):
    """The shim decided against the sidecar, which is no failure; `reason` is its sentence, `console` all it said."""

    def __init__(self, reason: str, console: str = "") -> None:
        super().__init__(f"the shim did not use the sidecar: {reason}")
        self.reason, self.console = reason, console


class Session:
    """One booted machine; `with` boots and ends it. Raises BootFailed, FellBack, MachineDied, UserError.

    `cpus` are the CPUs that the sidecar started, by Linux number. `tests` lets the RAISE command raise faults.
    `directory` keeps the machine's files and images; a temporary one is used, and removed, otherwise.
    """

    machine: Machine
    found: Discovered
    backing: RelayBacking
    driver: PageDriver
    cpus: dict[int, Cpu]

    def __init__(
        self,
        *,
        smp: int,
        numa: int = 1,
        memory_bytes: int | None = None,
        accel: Request = "auto",
        append: str = "",
        tests: bool = False,
        directory: Path | None = None,
        qmp_socket: Path | None = None,
        extra: tuple[str, ...] = (),
        seconds: float | None = None,
        progress: Progress = unwatched,
    ) -> None:
        self.smp, self.numa, self.memory_bytes = smp, numa, memory_bytes
        self.append = " ".join(filter(None, (append, TESTS_OPTION if tests else "")))
        self.seconds = seconds if seconds is not None else START_SECONDS + smp * SECONDS_PER_CPU
        self.qemu: Qemu = find_qemu()
        self.accelerator: Accelerator = choose_accelerator(accel, self.qemu)
        self._directory, self._qmp_socket, self._extra, self._progress = directory, qmp_socket, extra, progress
        self._owned = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            spec = self._spec(stack)
            self.machine = stack.enter_context(Machine(spec, directory=self._directory, qemu=self.qemu))
            fall_back = self._wait_ready()
            if fall_back is None:
                self._attach(stack)
                self._owned = stack.pop_all()
        if fall_back is not None:  # raised out here, so that the machine ends as one that did well
            raise fall_back
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.__exit__(kind, error, trace)

    @property
    def notes(self) -> list[str]:
        """What the shim noted for its user though the boot went on."""
        return notes(self.console)

    @property
    def console(self) -> str:
        """What the shim has printed."""
        return self.machine.console

    def _attach(self, stack: contextlib.ExitStack) -> None:
        self.found = discover(self.machine.ram)
        self.backing = RelayBacking(self.machine, self.found)
        self.driver = stack.enter_context(PageDriver(self.backing))
        self.cpus = {cpu.linux_number: Cpu(self.driver, cpu.linux_number) for cpu in self.found.sidecar_cpus}

    def _spec(self, stack: contextlib.ExitStack) -> MachineSpec:
        """The machine, with its two images written where QEMU finds them."""
        where = self._directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-images-")))
        where.mkdir(parents=True, exist_ok=True)
        shim, bundle = where / "shim.elf", where / "bundle.bin"
        shim.write_bytes(image.shim().elf)
        bundle.write_bytes(image.bundle({BundleKind.SIDECAR: image.kernel().elf}))
        spec = MachineSpec(
            accelerator=self.accelerator,
            kernel=shim,
            initrd=bundle,
            append=self.append,
            smp=self.smp,
            numa=self.numa,
            memory_bytes=self.memory_bytes,
            qmp_socket=self._qmp_socket,
            extra=self._extra,
        )
        if self._qmp_socket is not None:
            stack.callback(self._qmp_socket.unlink, missing_ok=True)
        return spec

    def _wait_ready(self) -> FellBack | None:
        """Until the relay is ready, which a byte says, or the shim says otherwise, by a line. Raises BootFailed."""
        started = time.monotonic()
        while True:
            readable, _, _ = select.select([self.machine.relay], [], [], LOOK_SECONDS)
            if readable and self.machine.relay.recv(1):
                return None
            if fall_back := self._look_for_the_end():
                return fall_back
            waited = time.monotonic() - started
            if waited > self.seconds:
                raise BootFailed(
                    f"the relay of a machine with {self.smp} CPUs was not ready after {self.seconds:g} s; "
                    f"the console ends:\n{last_lines(self.machine.console)}"
                )
            self._progress(waited)

    def _look_for_the_end(self) -> FellBack | None:
        """The fall-back, if the boot has ended in one. Raises BootFailed if it has ended without a relay."""
        if self.machine.alive and fall_back_reason(self.machine.console) is not None:
            self.machine.wait_exit(seconds=END_SECONDS)
        alive = self.machine.alive  # asked first: its last words are then on the console
        console = self.machine.console
        if fatal := fatal_line(console):
            raise BootFailed(fatal)
        if reason := fall_back_reason(console):
            return FellBack(reason, console)
        if not alive:
            try:
                self.machine.qmp("query-status")
            except MachineDied as error:
                raise BootFailed(f"the machine ended while it was booting: {error}") from error
        return None


def last_lines(text: str, count: int = 12) -> str:
    """The end of a console, indented."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-count:]) or "    (nothing)"
