"""A QEMU machine from start to end, as a context manager.

    with Machine(MachineSpec(accelerator=..., kernel=..., smp=4)) as machine:
        machine.wait_console("sidecar: ready", seconds=10)
        machine.ram.read(0x1000, 4096)
        machine.qmp("query-status")

Its run directory keeps what a post-mortem needs:

    command.txt  console.log  sidecar.log  qemu.err  qmp.log

A given directory stays; a temporary one goes when the block ends well, and is named in the error when it does not.
However the block ends, QEMU is gone after it.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sidecar.qemu.command_line import MachineSpec, Wiring, backend_name, command_line
from sidecar.qemu.executable import Qemu, find_qemu
from sidecar.qemu.memory_map import MemoryMap, parse_memory_tree
from sidecar.qemu.monitor import REPLY_SECONDS, Event, Monitor, MonitorLost
from sidecar.qemu.process import QemuProcess
from sidecar.qemu.ram import GuestRam
from sidecar.qemu.registers import CpuRegisters
from sidecar.qemu.waiting import WaitedInVain, wait_until

T = TypeVar("T")

START_SECONDS = 60.0
LAST_LINES = 12
_PANIC = re.compile(r"Kernel panic - not syncing: [^\r\n]*")
_FAREWELLS = {"guest-shutdown": "the guest powered off", "guest-reset": "the guest rebooted, which ends the machine"}
"""By the reason in QEMU's event SHUTDOWN."""


class MachineDied(Exception):
    """QEMU ended, or could not be started, while the machine was still needed."""


class Machine:
    """One QEMU process and everything that connects us with it. `with` starts it, and ends it whatever happens."""

    directory: Path
    command: tuple[str, ...]
    process: QemuProcess
    monitor: Monitor
    ram: GuestRam
    relay: socket.socket  # our end of COM2
    terminal: socket.socket | None = None  # our end of COM1, if the machine is interactive

    def __init__(self, spec: MachineSpec, *, directory: Path | None = None, qemu: Qemu | None = None) -> None:
        self.spec = spec
        self.qemu = qemu if qemu is not None else find_qemu()
        self._given = directory
        self._owned = contextlib.ExitStack()

    # --- start and end ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="sidecar-machine-"))
        try:
            self._start()
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        files = {backend_name(node): self._memory_file(node) for node in range(self.spec.numa)}
        self.ram = GuestRam(files, self._memory_map)
        self._owned.callback(self.ram.close)
        self.relay, relay_inside = self._sockets()
        qmp, qmp_inside = self._sockets()
        terminal_inside = None
        if self.spec.interactive:
            self.terminal, terminal_inside = self._sockets()
        wiring = Wiring(
            console=self._file("console.log"),
            sidecar_log=self._file("sidecar.log"),
            relay=relay_inside.fileno(),
            qmp=qmp_inside.fileno(),
            memory=tuple(files.values()),
            terminal=terminal_inside.fileno() if terminal_inside else None,
        )
        self.command = tuple(command_line(self.qemu.path, self.spec, wiring))
        self._file("command.txt").write_text(shlex.join(self.command) + "\n")
        # What is registered last goes first: QEMU is killed before its monitor is closed, which then need not wait.
        self._owned.callback(self._close_monitor)
        inside = [end for end in (relay_inside, qmp_inside, terminal_inside) if end is not None]
        try:
            inherited = (*(end.fileno() for end in inside), *wiring.memory)
            self.process = QemuProcess(self.command, inherited=inherited, errors=self._file("qemu.err"))
        except OSError as error:
            raise MachineDied(f"QEMU cannot be started ({error})\ncommand: {shlex.join(self.command)}") from error
        self._owned.callback(self.process.kill)
        for end in inside:
            end.close()
        try:
            self.monitor = Monitor(qmp, transcript=self._file("qmp.log"), seconds=START_SECONDS)
        except MonitorLost as error:
            raise self._death() from error
        self.ram.refresh()  # so that RAM can still be read when QEMU has died
        if not self.spec.paused:
            self.cont()

    def _end(self, error: BaseException | None) -> None:
        self._owned.close()
        if error is not None:
            error.add_note(f"the machine's files are in {self.directory}")
        elif self._given is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _close_monitor(self) -> None:
        if hasattr(self, "monitor"):
            self.monitor.close()

    def _memory_file(self, node: int) -> int:
        """A fresh memory file: a reused one would show the guest the pages of its last run."""
        file = os.memfd_create(f"guest-{backend_name(node)}", os.MFD_CLOEXEC)
        self._owned.callback(os.close, file)
        os.ftruncate(file, self.spec.node_bytes)
        return file

    def _sockets(self) -> tuple[socket.socket, socket.socket]:
        ours, inside = socket.socketpair()
        self._owned.callback(ours.close)
        self._owned.callback(inside.close)
        return ours, inside

    def _file(self, name: str) -> Path:
        """A file of the run directory, emptied."""
        file = self.directory / name
        file.write_bytes(b"")
        return file

    # --- the monitor ----------------------------------------------------------------------------------------------

    def qmp(self, command: str, *, seconds: float = REPLY_SECONDS, **arguments: Any) -> Any:
        """QEMU's reply to a QMP command; write `_` for the `-` in argument names.

        Raises QmpRefused, MachineDied, WaitedInVain.
        """
        dashed = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._ask(lambda: self.monitor.execute(command, dashed, seconds=seconds))

    def hmp(self, line: str, *, cpu: int | None = None, seconds: float = REPLY_SECONDS) -> str:
        """The text that the human monitor prints for `line`."""
        return self._ask(lambda: self.monitor.hmp(line, cpu=cpu, seconds=seconds))

    def registers(self, cpu: int) -> CpuRegisters:
        """The registers of one CPU as QEMU sees them; exact while it is stopped or halted."""
        return self._ask(lambda: self.monitor.registers(cpu))

    def all_registers(self) -> tuple[CpuRegisters, ...]:
        """The registers of every CPU."""
        return self._ask(self.monitor.all_registers)

    def read_memory(self, pa: int, size: int) -> bytes:
        """Guest-physical memory as QEMU sees it: slow, but independent of `ram`."""
        return self._ask(lambda: self.monitor.read(pa, size))

    def stop(self) -> None:
        """Stops every CPU."""
        self.qmp("stop")

    def cont(self) -> None:
        """Lets every CPU run."""
        self.qmp("cont")

    def inject_nmi(self) -> None:
        """An NMI to every CPU: QEMU knows no other."""
        self.qmp("inject-nmi")

    @property
    def events(self) -> tuple[Event, ...]:
        return self.monitor.events

    def wait_event(self, name: str, *, seconds: float, after: int = 0) -> Event:
        """The first event of that name after the first `after` events. Raises WaitedInVain, MachineDied."""

        def look() -> Event | None:
            ended = not self.alive  # asked first: its last events are then on their way
            try:
                return self.monitor.wait_event(name, seconds=0.2, after=after)
            except WaitedInVain as error:
                if ended:
                    raise self._death() from error
                return None

        try:
            return wait_until(look, seconds=seconds, what=f"QEMU's event {name}")
        except WaitedInVain as error:
            error.add_note(f"events seen: {', '.join(event.name for event in self.events[after:]) or 'none'}")
            raise

    def _memory_map(self) -> MemoryMap:
        backends = [backend_name(node) for node in range(self.spec.numa)]
        return parse_memory_tree(self.hmp("info mtree -f"), backends)

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except MonitorLost as error:
            raise self._death() from error

    # --- the serial ports -----------------------------------------------------------------------------------------

    @property
    def console(self) -> str:
        """Everything on COM1 so far."""
        return self._text("console.log")

    @property
    def sidecar_log(self) -> str:
        """Everything on COM3 so far."""
        return self._text("sidecar.log")

    def wait_console(self, pattern: str, *, seconds: float) -> re.Match[str]:
        """The first match of the regular expression `pattern` on COM1. Raises WaitedInVain, MachineDied."""
        return self._wait_text("console.log", pattern, seconds)

    def wait_sidecar_log(self, pattern: str, *, seconds: float) -> re.Match[str]:
        """The same on COM3."""
        return self._wait_text("sidecar.log", pattern, seconds)

    def ring(self) -> None:
        """A byte into COM2, whose interrupt wakes the relay; where no more fit, those that wait there will wake it."""
        try:
            self.relay.send(b"\0", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._death() from error

    def _text(self, name: str) -> str:
        return self.directory.joinpath(name).read_text(encoding="utf-8", errors="replace")

    def _wait_text(self, name: str, pattern: str, seconds: float) -> re.Match[str]:
        sought = re.compile(pattern, re.MULTILINE)

        def look() -> re.Match[str] | None:
            ended = not self.alive  # asked first: its last words are then in the file
            match = sought.search(self._text(name))
            if match is None and ended:
                raise self._death()
            return match

        try:
            return wait_until(look, seconds=seconds, what=f"{pattern!r} in {name}", interval=0.005)
        except WaitedInVain as error:
            error.add_note(f"{name} ends:\n{self._last_lines(name)}")
            raise

    # --- the process ----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.exit_status is None

    def check(self) -> None:
        """Raises MachineDied if QEMU has ended."""
        if not self.alive:
            raise self._death()

    def wait_exit(self, *, seconds: float) -> int:
        """QEMU's exit status when it ends by itself, as after a write to isa-debug-exit. Raises WaitedInVain."""
        status = self.process.wait(seconds)
        if status is None:
            raise WaitedInVain(seconds, f"QEMU (process {self.pid}) to end")
        return status

    @property
    def farewell(self) -> str | None:
        """How the guest itself has ended the machine, by power-off or reboot; None if it runs, died or panicked."""
        if self.process.exit_status != 0 or _PANIC.search(self._text("console.log")):
            return None
        reasons = [str(event.data.get("reason")) for event in self.events if event.name == "SHUTDOWN"]
        return _FAREWELLS.get(reasons[-1]) if reasons else None

    def kill(self) -> None:
        """Ends QEMU at once."""
        self.process.kill()

    def _death(self) -> MachineDied:
        status = self.process.wait(2)
        what = "QEMU no longer answers, but still runs" if status is None else f"QEMU ended with {_described(status)}"
        if panic := _PANIC.search(self._text("console.log")):
            what += f": {panic.group()}"
        elif farewell := self.farewell:
            what += f": {farewell}"
        parts = [what, f"command: {shlex.join(self.command)}"]
        for name in ("qemu.err", "console.log", "sidecar.log"):
            if lines := self._last_lines(name):
                parts.append(f"{name} ends:\n{lines}")
        return MachineDied("\n".join(parts))

    def _last_lines(self, name: str) -> str:
        return "\n".join(f"    {line}" for line in self._text(name).splitlines()[-LAST_LINES:])


def _described(status: int) -> str:
    if status < 0:
        return f"signal {-status}"
    if status & 1 and status > 1:
        return f"exit status {status} (isa-debug-exit: the guest wrote {status >> 1:#x})"
    return f"exit status {status}"
