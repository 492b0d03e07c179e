"""The flight recorder of a CPU as plain data: its last events with their times, oldest first.

Of a machine that runs, of its memory after it died, and in the guest through the driver alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.layout import CpuStatus, DiagnosticPage, SidecarCommand
from sidecar.layout.diagnostics import RECORDER_ENTRIES, RecorderEvent
from sidecar.layout.x86 import MNEMONICS
from sidecar.protocol.decode import Decoded, name_of


@dataclass(frozen=True, slots=True)
class Event:
    """`number` counts from the first event on; `value` as RecorderEvent says."""

    number: int
    tsc: int
    event: int
    value: int

    @property
    def what(self) -> str:
        """
        >>> Event(0, 0, RecorderEvent.COMMAND, SidecarCommand.RAISE).what
        'raise'
        """
        match self.event:
            case RecorderEvent.COMMAND:
                return name_of(SidecarCommand, self.value)
            case RecorderEvent.FINISHED:
                return f"from {name_of(CpuStatus, self.value)}"
            case RecorderEvent.FAULTED:
                return MNEMONICS.get(self.value, f"vector {self.value:#x}")
            case RecorderEvent.ARRIVED:
                return f"arrival {self.value}"
            case RecorderEvent.REMOVED:
                return f"removal {self.value}"
        return f"{self.value:#x}"


def events(page: bytes) -> list[Event]:
    """The events that are still there, from the bytes of a diagnostic page.

    Once the ring is full, its oldest entry is left out: the CPU may have been overwriting it when the page was read.
    """
    ring = DiagnosticPage.parse(page).recorder
    written = int(ring.written)
    first = 0 if written < RECORDER_ENTRIES else written - RECORDER_ENTRIES + 1
    found = []
    for number in range(first, written):
        entry = ring.entries[number % RECORDER_ENTRIES]
        found.append(Event(number, int(entry.tsc), int(entry.event), int(entry.value)))
    return found


def recorder(page: bytes, *, first_init_tsc: int, tsc_khz: int) -> Decoded:
    """How many events there were, and those that are left, in microseconds since the first INIT."""
    left = events(page)
    return {
        "written": int(DiagnosticPage.parse(page).recorder.written),
        "events": [
            {
                "number": one.number,
                "us": round((one.tsc - first_init_tsc) * 1000 / tsc_khz, 3) if tsc_khz else None,
                "tsc": one.tsc,
                "event": name_of(RecorderEvent, one.event),
                "value": one.value,
                "what": one.what,
            }
            for one in left
        ],
    }
