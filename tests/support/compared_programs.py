"""What the guests of the comparison with KVM do: one program for each kind of thing that a guest can do.

LOOK is an exit that has no meaning, so that all registers are looked at there. Left out is what the emulation of SVM
under TCG does otherwise than hardware: it lets a guest set reserved bits of CR0 and CR4, where KVM looks itself, and
gives addresses that are not canonical to MSRs that KVM does not intercept.
"""

from tests.support.compared_accesses import MEMORY, PORTS
from tests.support.compared_events import EXCEPTIONS, INTERRUPTS, TRIPLE_FAULT
from tests.support.compared_features import CPUID, MSRS, VECTORS
from tests.support.compared_modes import CONTROL, MODES, REAL

GUESTS: dict[str, str] = {
    "ports": PORTS, "real": REAL, "modes": MODES, "memory": MEMORY, "cpuid": CPUID, "msrs": MSRS, "vectors": VECTORS,
    "exceptions": EXCEPTIONS, "interrupts": INTERRUPTS, "control": CONTROL, "triple-fault": TRIPLE_FAULT,
}  # fmt: skip
