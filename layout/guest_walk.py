"""What one walk of a guest's page tables takes, collects and gives; a frame on the sidecar's stack."""

from __future__ import annotations

from sidecar.layout.parts import Array, Bytes, Int8ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import Layout

WALK_LEVELS = 5
WALK_TRIES = 64
"""How often a walk starts again because another CPU has changed an entry between reading it and marking it accessed."""

GUEST_TABLES_CHANGE = 0x100
"""Instead of an HvTranslateResult: they changed WALK_TRIES times."""

GuestWalkEntry = Layout(
    "GuestWalkEntry",
    Struct(
        "gpa" / Int64ul * "guest-physical address of the entry",
        "value" / Int64ul * "as it was read",
    ),
    size=16,
    doc="One page-table entry that a walk has used.",
)

GuestWalk = Layout(
    "GuestWalk",
    Struct(
        "linear" / Int64ul * "in: linear address",
        "flags" / Int32ul * "in: HvTranslateFlags",
        "modes" / Int32ul * "bit 0: access is checked as the supervisor's, bit 1: as the user's; see HvTranslateFlags",
        "gpa" / Int64ul * "out: guest-physical address; of the entry that cannot be used, if level is not 0",
        "va" / Int64ul * "out: where it is mapped in a guest window",
        "event" / Array(2, Int64ul) * "out: HvPendingEvent that an access would have raised",
        "forbidden" / Int64ul * "bits that no entry of this walk may have",
        "level" / Int32ul * "out: level of the table at which the walk ended, 0: at the page itself",
        "tries" / Int32ul * "walks that are left",
        "count" / Int32ul * "entries used so far",
        "wide" / Int32ul * "1: entries of 8 bytes, 0: of 4",
        "cache_type" / Int8ul * "out: HvCacheType",
        "reserved_49" / Bytes(7) * "unused",
        "entries" / Array(WALK_LEVELS, GuestWalkEntry.struct) * "from the root on",
    ),
    size=0xA0,
    doc="A walk of the guest's page tables.",
)
