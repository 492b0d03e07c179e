"""What is delivered to a guest: exceptions at once, interrupts and NMIs as soon as it takes them.

An interrupt that cannot be taken now is waited for by HvX64RegisterDeliverabilityNotifications: the run then ends with
WindowExit when it can be, and the next entry delivers it. Ref: TLFS, "Virtual Processor Registers"; SDM vol. 3A, 7.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.client.vmm.exits import Exit, HaltExit, Intercept, WindowExit
from sidecar.layout.hv import HvDeliverability, HvInterruptionType
from sidecar.layout.hv_messages import HvExecutionState
from sidecar.layout.hv_registers import HvRegisterName
from sidecar.layout.x86 import Rflags
from sidecar.protocol.vp_events import exception, interruption

if TYPE_CHECKING:
    from sidecar.client.vmm.vp import Vp

NMI_VECTOR = 2
PENDING_INTERRUPTION = int(HvRegisterName.HvRegisterPendingInterruption)
PENDING_EVENT = int(HvRegisterName.HvRegisterPendingEvent0)
DELIVERABILITY = int(HvRegisterName.HvX64RegisterDeliverabilityNotifications)


class Events:
    """The interrupts of one virtual processor that wait for the guest."""

    def __init__(self, vp: Vp) -> None:
        self._vp = vp
        self._interrupts: list[int] = []
        self._nmi = False
        self._open = False
        """The guest takes an interrupt at the next entry, as the last exit told."""
        self._nmi_open = False
        self._asked = 0

    def __bool__(self) -> bool:
        """Does anything wait?"""
        return self._nmi or bool(self._interrupts)

    def interrupt(self, vector: int) -> None:
        if not 16 <= vector <= 255:
            raise ValueError(f"an external interrupt has a vector of 16 to 255, not {vector}")
        if vector not in self._interrupts:
            self._interrupts = sorted([*self._interrupts, vector])

    def nmi(self) -> None:
        self._nmi = True

    def fault(self, vector: int, *, error_code: int | None, address: int | None) -> None:
        self._vp.set({PENDING_EVENT: exception(vector, error_code, parameter=address or 0)})
        self._open = self._nmi_open = False

    def waiting(self) -> tuple[list[int], bool]:
        """Vectors, and whether an NMI, for a snapshot."""
        return list(self._interrupts), self._nmi

    def wait_for(self, interrupts: list[int], *, nmi: bool) -> None:
        """The other way."""
        self._interrupts, self._nmi, self._asked = sorted(interrupts), nmi, 0
        self._open = self._nmi_open = False

    def wake(self, *, on: bool) -> bool:
        """Does something wait that ends a HLT, with interrupts on or off? The guest takes it at once then."""
        if self._nmi:
            self._nmi_open = True
        elif on and self._interrupts:
            self._open = True
        return self._nmi or (on and bool(self._interrupts))

    def before_run(self) -> None:
        """Delivers one, and asks to be told when the guest takes the next."""
        if not self:
            return
        values: dict[str | int, int] = {}
        if self._nmi and self._nmi_open:
            self._nmi = False
            values[PENDING_INTERRUPTION] = interruption(HvInterruptionType.NMI, NMI_VECTOR)
        elif self._interrupts and self._open:
            values[PENDING_INTERRUPTION] = interruption(HvInterruptionType.INTERRUPT, self._interrupts.pop())
        wanted = (HvDeliverability.NMI if self._nmi else 0) | (HvDeliverability.INTERRUPT if self._interrupts else 0)
        if wanted != self._asked:
            values[DELIVERABILITY] = self._asked = wanted
        if values:
            self._vp.set(dict(values))
        self._open = self._nmi_open = False

    def after_run(self, exit: Exit) -> None:
        """Learns from an exit whether the guest takes an interrupt now."""
        if isinstance(exit, WindowExit):
            self._asked = 0
            self._nmi_open = exit.nmi
        if isinstance(exit, Intercept):
            free = not exit.state & HvExecutionState.INTERRUPTION_PENDING
            on = bool(exit.rflags & Rflags.IF)
            self._open = free and on and (isinstance(exit, HaltExit) or not exit.in_shadow)
        else:
            self._open = False

