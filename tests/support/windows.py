"""NMIs at chosen instructions: a CPU is stopped before each instruction of a routine, and meets an NMI there.

Between two instructions of the kernel nobody else can stand; with QEMU's gdb stub a test can. The boot CPU alone runs
while it sends the NMI, so the CPU that is stopped takes it before it executes anything more.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.layout import IMAGE_VA
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu
from sidecar.qemu.session import Session
from tests.support import cpus
from tests.support.gdb import Gdb

LOOK_SECONDS = 0.002
HOLD_SECONDS = 120.0

Action = Callable[[], None]


class Windows:
    """One CPU of a machine under gdb. Between the calls of its methods the machine runs."""

    def __init__(self, session: Session, gdb: Gdb, cpu: Cpu) -> None:
        self.session, self.gdb, self.cpu = session, gdb, cpu
        gdb.resume()

    def stop_at(self, address: int, action: Action) -> bool:
        """Stops the machine when the CPU gets to `address` because of `action`; False if it does not.

        The action runs in a thread of its own until `let_go`; it ends when the CPU's status says so.
        """
        self.gdb.interrupt()
        self.gdb.break_at(address)
        self.gdb.resume()
        self._action = threading.Thread(target=action)
        self._action.start()
        return self._stopped_at(address)

    def go_to(self, address: int) -> bool:
        """From one stop to the next, within the same action."""
        self.gdb.break_at(address)
        self.gdb.resume()
        return self._stopped_at(address)

    def _stopped_at(self, address: int) -> bool:
        while not self.gdb.has_stopped(seconds=LOOK_SECONDS):
            if not self._action.is_alive() and self.session.machine.registers(self.cpu.number).halted:
                self.gdb.interrupt()
                self.gdb.clear(address)
                self.gdb.resume()
                return False
        assert self.gdb.wait_stop(seconds=cpus.SECONDS) == self.cpu.number
        self.gdb.clear(address)
        return True

    def send(self, kind: Icr, vector: int = 0) -> None:
        """The CPU has the interrupt as soon as it goes on."""
        self.session.backing.send(self.cpu.numbers.apic_id << 32 | kind | vector)
        self.gdb.resume(0)
        self.session.backing.drain(cpus.SECONDS)
        self.gdb.interrupt()

    def let_go(self) -> None:
        """All CPUs go on; returns when the action has ended."""
        self.gdb.resume()
        self._action.join(cpus.SECONDS)
        assert not self._action.is_alive()

    def hold(self) -> None:
        """All CPUs but the one that is stopped go on; returns when the action has ended, and they still go on."""
        self.gdb.resume(*({0} | self.session.cpus.keys()) - {self.cpu.number})
        self._action.join(HOLD_SECONDS)
        assert not self._action.is_alive()

    def end_hold(self) -> None:
        """It goes on too."""
        self.gdb.interrupt()
        self.gdb.resume()


@contextmanager
def windows(directory: Path, cpu: int = 1) -> Iterator[Windows]:
    """A machine of two sidecar CPUs, one of which can be stopped anywhere."""
    with tempfile.TemporaryDirectory(prefix="sidecar-gdb-") as short:  # a socket's path has 107 bytes at most
        path = Path(short, "gdb")
        extra = ("-gdb", f"unix:{path},server=on,wait=off")
        with Session(smp=3, tests=True, directory=directory, extra=extra) as session, Gdb(path) as gdb:
            yield Windows(session, gdb, session.cpus[cpu])


def instructions(*routines: str) -> list[int]:
    """The addresses of all instructions of these routines."""
    lines = cpus.kernel_code().lines
    return [IMAGE_VA + line.vaddr for line in lines if line.is_instruction and line.routine in routines]
