"""A machine that is given something to boot, and what it says of it: its last line and QEMU's exit status."""

import re
import select
from dataclasses import dataclass
from pathlib import Path

from sidecar.builder import image
from sidecar.qemu.accelerator import Accelerator
from sidecar.qemu.command_line import MachineSpec
from sidecar.qemu.machine import Machine
from sidecar.qemu.waiting import wait_until
from sidecar.shim.console import ExitCode

SECONDS = 20
TCG = Accelerator("tcg", "TCG, as asked for")
_LAST = re.compile(r"^shim: (fatal|not using the sidecar): (.*)$", re.MULTILINE)
READY = "shim: relay: serving the host"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a boot ended: in the relay, which serves the host, or with the machine."""

    ready: bool
    status: int | None
    console: str

    @property
    def fatal(self) -> str:
        """The one sentence of a boot that could not go on."""
        return self._sentence("fatal", ExitCode.FATAL)

    @property
    def fallback(self) -> str:
        """The one reason for which the sidecar was not used; without Linux there is then nothing to run."""
        return self._sentence("not using the sidecar", ExitCode.NOTHING_TO_RUN)

    def _sentence(self, kind: str, code: ExitCode) -> str:
        found = [(match[1], match[2].rstrip()) for match in _LAST.finditer(self.console)]
        assert [how for how, _ in found] == [kind], self.console
        assert self.status == code << 1 | 1, f"QEMU ended with status {self.status}"
        return found[0][1]


def boot(directory: Path, initrd: bytes | None, *, smp: int = 2) -> Ending:
    """Boot the shim with these bytes as -initrd, or without one, until the relay is ready or the machine ends."""
    kernel, bundle = directory / "shim.elf", directory / "bundle.img"
    kernel.write_bytes(image.shim().elf)
    if initrd is not None:
        bundle.write_bytes(initrd)
    spec = MachineSpec(
        accelerator=TCG, kernel=kernel, initrd=bundle if initrd is not None else None, smp=smp, paused=True
    )
    with Machine(spec, directory=directory) as machine:
        machine.cont()  # only now, so that the machine does not end while we still connect
        ready = wait_until(lambda: _ended(machine), seconds=SECONDS, what="the relay, or the end of the machine")
        return Ending(ready == "ready", machine.process.exit_status, machine.console)


def _ended(machine: Machine) -> str:
    if not machine.alive:
        return "ended"
    readable, _, _ = select.select([machine.relay], [], [], 0.01)
    return "ready" if readable and machine.relay.recv(1) else ""
