"""Which QEMU this host has, and whether it is new enough.

QEMU emulates x2APIC under TCG from version 9.0 on; the sidecar sends every interrupt through it. Under KVM the
version does not matter, because there the host's kernel provides the local APICs.

Ref: QEMU 9.0 change log, "TCG: added support for x2APIC".
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import UserError

PROGRAM = "qemu-system-x86_64"
OVERRIDE = "SIDECAR_QEMU"  # environment variable: path of the QEMU to use
FIRST_WITH_X2APIC_UNDER_TCG = (9, 0)
REMEDY = "run 'make setup' (on Debian 12 it takes QEMU from bookworm-backports), or name another one in " + OVERRIDE


class QemuMissing(UserError):
    """There is no QEMU on this host."""


class QemuTooOld(UserError):
    """The QEMU found has no x2APIC under TCG."""


@dataclass(frozen=True, slots=True)
class Qemu:
    path: Path
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    def require_x2apic_under_tcg(self) -> None:
        """Raises QemuTooOld if this QEMU cannot run the sidecar under TCG."""
        if self.version < FIRST_WITH_X2APIC_UNDER_TCG:
            needed = ".".join(map(str, FIRST_WITH_X2APIC_UNDER_TCG))
            raise QemuTooOld(
                f"{self.path} is QEMU {self.version_text}, but the sidecar needs at least {needed} "
                f"(the first with x2APIC under TCG): {REMEDY}"
            )


def find_qemu() -> Qemu:
    """The QEMU that SIDECAR_QEMU names, else the one on PATH. Raises QemuMissing."""
    named = os.environ.get(OVERRIDE) or PROGRAM
    found = shutil.which(named)
    if found is None:
        raise QemuMissing(f"there is no {named} on this host: {REMEDY}")
    try:
        output = subprocess.run(
            [found, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QemuMissing(f"{found} does not run ({error}): {REMEDY}") from error
    return Qemu(path=Path(found), version=parse_version(output, program=found))


def parse_version(output: str, *, program: str = PROGRAM) -> tuple[int, ...]:
    """The version in what `qemu-system-x86_64 --version` prints. Raises QemuMissing if it prints something else."""
    match = re.search(r"QEMU emulator version (\d+(?:\.\d+)+)", output)
    if match is None:
        raise QemuMissing(f"{program} --version does not name a QEMU version, it prints {output[:80]!r}: {REMEDY}")
    return tuple(int(part) for part in match.group(1).split("."))
