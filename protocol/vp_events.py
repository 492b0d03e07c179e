"""Values of the TLFS registers by which a VMM gives a guest interrupts and exceptions.

    cpu.set_registers({"HvRegisterPendingEvent0": external_interrupt(0x31)})
    cpu.set_registers({"HvX64RegisterDeliverabilityNotifications": when_interruptible()})

Ref: TLFS, HV_X64_PENDING_EVENT, HV_X64_PENDING_INTERRUPTION_REGISTER, HV_X64_DELIVERABILITY_NOTIFICATIONS_REGISTER.
"""

from __future__ import annotations

from sidecar.layout.hv import (
    HvDeliverability,
    HvInterruptionType,
    HvPendingEvent,
    HvPendingEventType,
    HvPendingInterruption,
)

MOST_PRIORITY = 15


def exception(vector: int, error_code: int | None = None, *, parameter: int = 0) -> int:
    """HvRegisterPendingEvent0: an exception that the next entry delivers. `parameter` is a page fault's address."""
    _check_vector(vector)
    value = HvPendingEvent.PENDING | HvPendingEventType.EXCEPTION << 1 | vector << 16 | parameter << 64
    if error_code is not None:
        value |= HvPendingEvent.DELIVER_ERROR_CODE | error_code << 32
    return int(value)


def external_interrupt(vector: int) -> int:
    """HvRegisterPendingEvent0: an interrupt that the guest gets as soon as it can take one."""
    _check_vector(vector)
    return int(HvPendingEvent.PENDING | HvPendingEventType.EXTERNAL_INTERRUPT << 1 | vector << 8)


def interruption(kind: HvInterruptionType, vector: int, error_code: int | None = None, *, length: int = 0) -> int:
    """HvRegisterPendingInterruption: what the next entry delivers, whatever the guest's state.

    `length`: bytes of the instruction that a software interrupt or exception comes from.
    """
    _check_vector(vector)
    value = HvPendingInterruption.PENDING | kind << 1 | length << 5 | vector << 16
    if error_code is not None:
        value |= HvPendingInterruption.DELIVER_ERROR_CODE | error_code << 32
    return int(value)


def when_interruptible(priority: int = 0) -> int:
    """HvX64RegisterDeliverabilityNotifications: tell when an interrupt of this priority could be taken."""
    if not 0 <= priority <= MOST_PRIORITY:
        raise ValueError(f"interrupt priority {priority}: expected 0 to {MOST_PRIORITY}")
    return int(HvDeliverability.INTERRUPT | priority << 2)


def when_nmi_possible() -> int:
    """HvX64RegisterDeliverabilityNotifications: tell when an NMI could be taken."""
    return int(HvDeliverability.NMI)


def _check_vector(vector: int) -> None:
    if not 0 <= vector <= 255:
        raise ValueError(f"vector {vector}: expected 0 to 255")
