"""When each part of a boot was reached, in seconds from QEMU's start.

The host's clock says when user space was seen. All earlier times are the guest's: TSC stamps of shim and sidecar, which
are in the SDCR table, and the stamp that /init prints, by which they are tied to the host's clock. Without a sidecar
there is only the kernel's own clock, which starts when the kernel does.
"""

import re
from dataclasses import dataclass

from sidecar.protocol.machine import Discovered

_INIT_RUNS = re.compile(r"^\[ *(\d+\.\d+)\] Run /init as init process", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Something was reached, `seconds` after QEMU's start."""

    what: str
    seconds: float


def timeline(found: Discovered | None, console: str, *, user_space: float, tsc: int) -> tuple[Stamp, ...]:
    """The stamps in their order; `user_space` in seconds, and the TSC at that moment."""
    stamps = [Stamp("QEMU start", 0.0)]
    if found is not None and found.tsc_khz:
        taken = (
            ("shim", found.shim_entry_tsc),
            ("sidecar", found.sidecar_entry_tsc),
            ("first INIT", found.first_init_tsc),
            ("all CPUs idle", found.all_idle_tsc),
            ("Linux", found.hand_over_tsc),
        )
        stamps += [Stamp(what, user_space - (tsc - at) / found.tsc_khz / 1000) for what, at in taken if at]
    elif match := _INIT_RUNS.search(console):
        stamps.append(Stamp("Linux", user_space - float(match.group(1))))
    return (*stamps, Stamp("user space", user_space))


def render(stamps: tuple[Stamp, ...]) -> str:
    """A line per stamp: the time, and how long it took from the one before."""
    lines, before = [], 0.0
    for stamp in stamps:
        lines.append(f"{stamp.seconds * 1000:10.1f} ms  +{(stamp.seconds - before) * 1000:<9.1f}  {stamp.what}")
        before = stamp.seconds
    return "\n".join(lines)
