"""The ledger: a line for every exit, to see afterwards where a guest's time went.

    {"vp": 0, "reason": "port", "detail": "out 0x3f8 1", "rip": "0x7c05", "bytes": "ee", ...}

Times: `guest` in the guest, `cpu` on the sidecar's CPU from taking RUN_VP to answering it, both in TSC ticks; `vmm` in
the VMM's handler, in ns. `entries` and `local` count the run's guest entries and the exits that the sidecar finished.
The first line of a file names the TSC's frequency.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from sidecar.errors import UserError

if TYPE_CHECKING:
    from sidecar.client.vmm.exits import Exit
    from sidecar.client.vmm.vp import Vp

FORMAT = "sidecar exits 1"
HOT = 5


class Ledger:
    """Writes entries to a text file, which stays the caller's."""

    def __init__(self, file: IO[str], *, tsc_khz: int) -> None:
        self._file = file
        self._put({"format": FORMAT, "tsc_khz": tsc_khz})

    def note(self, vp: Vp, exit: Exit, *, vmm_ns: int) -> None:
        """An exit that has been handled; the counters are of the run that it ended."""
        ticks = vp.cpu.ticks()
        code = getattr(exit, "code", b"")
        self._put({
            "vp": vp.index, "reason": exit.reason, "detail": exit.detail, "rip": hex(exit.rip), "bytes": code.hex(),
            "entries": vp.guest_entries, "local": vp.local_exits, "guest": vp.guest_ticks,
            "cpu": ticks.end - ticks.start, "vmm": vmm_ns,
        })  # fmt: skip

    def _put(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")


@dataclass(slots=True)
class Row:
    """Exits of one reason and detail; microseconds."""

    reason: str
    detail: str
    count: int = 0
    guest_us: float = 0.0
    cpu_us: float = 0.0
    vmm_us: float = 0.0
    rips: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        return {
            "reason": self.reason, "detail": self.detail, "count": self.count, "guest_us": round(self.guest_us, 1),
            "sidecar_us": round(self.cpu_us - self.guest_us, 1), "vmm_us": round(self.vmm_us, 1),
            "rips": dict(self.rips.most_common(HOT)),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """What a ledger says in sum; rows by count."""

    exits: int
    entries: int
    local: int
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        return {
            "exits": self.exits, "guest_entries": self.entries, "local_exits": self.local,
            "rows": [row.as_dict() for row in self.rows],
        }  # fmt: skip


def summarize(lines: Iterable[str]) -> Summary:
    """Raises UserError for what is no ledger; a last line that was cut off counts as not written."""
    rows: dict[tuple[str, str], Row] = {}
    exits = entries = local = 0
    records = _records(lines)
    head = next(records, {})
    if head.get("format") != FORMAT:
        raise UserError(f"this is no ledger of exits: its first line does not say '{FORMAT}'")
    per_us = (head.get("tsc_khz") or 0) / 1000 or 1.0
    for entry in records:
        key = entry["reason"], entry["detail"]
        row = rows.setdefault(key, Row(*key))
        row.count += 1
        row.guest_us += entry["guest"] / per_us
        row.cpu_us += entry["cpu"] / per_us
        row.vmm_us += entry["vmm"] / 1000
        row.rips[entry["rip"]] += 1
        exits, entries, local = exits + 1, entries + entry["entries"], local + entry["local"]
    return Summary(exits, entries, local, sorted(rows.values(), key=lambda row: -row.count))


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if line.endswith("\n"):
                raise UserError(f"this is no ledger of exits: {line.strip()[:60]!r} is not JSON") from error
