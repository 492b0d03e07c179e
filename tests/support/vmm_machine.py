"""Guests for the VMM library on the CPUs of a machine without Linux, written with the project's assembler.

    with GuestMachine(session, memory=1 << 20) as guest:
        guest.load(assembled(CODE, 0x7C00), Mode.REAL)
        run_to_halt(guest)
        guest.console
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from sidecar.builder.asm import assemble
from sidecar.client.vmm.devices import debug_exit, uart
from sidecar.client.vmm.loaders.modes import Mode
from sidecar.client.vmm.loaders.raw import load_raw
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.pages_backing import PagesVm
from sidecar.client.vmm.vp import Vp
from sidecar.qemu.hosted_vp import FreeRam
from sidecar.qemu.session import Session

LABEL = "AT_"
PLACEHOLDER = 0x7000
MIB = 1 << 20
SPIN = "again: inc rbx\n jmp again"


def assembled(text: str, address: int, names: Mapping[str, object] | None = None) -> bytes:
    """A guest that begins with the label `start`, for that address; AT_x in its text is a number, the address of x."""
    wanted = {word for word in _words(text) if word.startswith(LABEL)}
    known = dict.fromkeys(wanted, PLACEHOLDER)

    def start() -> str:
        return text

    data = b""
    for _ in range(2):
        code = assemble([start], names={**(names or {}), **known})
        linked = code.link({".text": address}, allow_absolute=False)
        data = linked.sections[".text"]
        known = {word: linked.symbols[word.removeprefix(LABEL)] for word in wanted}
    return data


def _words(text: str) -> list[str]:
    return "".join(character if character.isalnum() or character == "_" else " " for character in text).split()


class GuestMachine:
    """A machine with a UART, the debug-exit port, and one virtual processor on the session's CPU `cpu`."""

    def __init__(self, session: Session, *, memory: int = 1 << 20, cpus: tuple[int, ...] = (1,)) -> None:
        free = FreeRam.of(session)
        backing = PagesVm(session.driver, session.machine.ram, free.take, tsc_khz=session.found.tsc_khz)
        self.machine = Machine(backing, memory=memory)
        self.console = b""
        self.machine.ports.add(uart.PORTS, uart.Uart(self._send))
        self.machine.ports.add(debug_exit.PORTS, debug_exit.DebugExit())
        self.vps: list[Vp] = [self.machine.add_vp(cpu) for cpu in cpus]

    @property
    def vp(self) -> Vp:
        return self.vps[0]

    def load(self, code: bytes, mode: Mode, *, address: int | None = None) -> None:
        for vp in self.vps:
            load_raw(self.machine.memory, vp, code, mode, address=address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.machine.close()

    def _send(self, data: bytes) -> None:
        self.console += data


def load(guest: GuestMachine, text: str) -> None:
    """64-bit code at 1 MiB."""
    guest.load(assembled(f"start:\n{text}\n hlt\n", MIB), Mode.LONG)


def run_to_halt(guest: GuestMachine) -> None:
    assert guest.machine.run(seconds=60) == Ended(How.HALTED)
