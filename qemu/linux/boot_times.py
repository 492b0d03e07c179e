"""How long the last boots of the same machine took, with the sidecar and without, for a report to compare with.

    times = BootTimes(cache_root())
    times.note("6.1.0-56-cloud-amd64, 64 CPUs, ...", "baseline one", 4.87)
    times.of("6.1.0-56-cloud-amd64, 64 CPUs, ...")           ->  {"baseline one": 4.87}

One time per mode, of this host, whatever else it did then: good enough to see a factor; a measurement is what
`sidecar bench --only boot` makes. The file can be deleted at any time.
"""

import json
from pathlib import Path
from typing import Any

from sidecar.qemu.linux.cache import locked, write_whole

MOST_MACHINES = 100


class BootTimes:
    """Seconds from QEMU's start to user space, by machine and mode, kept in a cache."""

    def __init__(self, root: Path) -> None:
        self._file, self._lock = root / "boot-times.json", root / "boot-times.lock"

    def of(self, machine: str) -> dict[str, float]:
        """What is known of the machine; nothing if the file cannot be read."""
        return dict(self._known().get(machine, {}))

    def note(self, machine: str, mode: str, seconds: float) -> None:
        """Keeps this time in the place of the mode's last one."""
        with locked(self._lock):
            known = self._known()
            times = {**known.pop(machine, {}), mode: round(seconds, 3)}
            known = {**known, machine: times}  # last, so that the machine that was booted longest ago is dropped first
            for old in list(known)[:-MOST_MACHINES]:
                del known[old]
            write_whole(self._file, json.dumps(known, indent=1).encode())

    def _known(self) -> dict[str, dict[str, float]]:
        try:
            known: dict[str, Any] = json.loads(self._file.read_text())
            return {name: {mode: float(seconds) for mode, seconds in times.items()} for name, times in known.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
