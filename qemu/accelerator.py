"""The choice between TCG, which emulates, and KVM, which needs a host that can really run this.

`auto` takes KVM only where /dev/kvm can run the sidecar (see kvm.py), else TCG. KVM on such hosts is supported by
design, but no host of that kind has been at hand: it is untested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sidecar.errors import UserError
from sidecar.qemu.executable import Qemu
from sidecar.qemu.kvm import Kvm, examine_kvm

Kind = Literal["tcg", "kvm"]
Request = Literal["auto", "tcg", "kvm"]
REQUESTS: tuple[Request, ...] = ("auto", "tcg", "kvm")


class NoKvm(UserError):
    """KVM was asked for by name on a host whose KVM cannot run the sidecar."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    kind: Kind
    reason: str  # one sentence, for the user

    @property
    def cpu_model(self) -> str:
        """QEMU's -cpu: everything the accelerator can do."""
        return {"tcg": "max", "kvm": "host"}[self.kind]


def choose_accelerator(request: Request, qemu: Qemu, probe: Callable[[], Kvm] = examine_kvm) -> Accelerator:
    """The accelerator for `request`. Raises NoKvm, or QemuTooOld where the choice is TCG and this QEMU cannot do it."""
    if request != "tcg":
        kvm = probe()
        if kvm.usable:
            return Accelerator("kvm", f"{kvm.reason}; KVM is supported but untested")
        if request == "kvm":
            raise NoKvm(f"KVM cannot run the sidecar on this host: {kvm.reason}; use --accel tcg")
        reason = f"TCG, because {kvm.reason}"
    else:
        reason = "TCG, as asked for"
    qemu.require_x2apic_under_tcg()
    return Accelerator("tcg", reason)
