"""Several fields of one layout read or written at once: an exit is decoded in microseconds, not by construct.

    read = Fields(MsrMessage, "header.rip", "msr", "rax")
    rip, msr, rax = read(page, payload)
"""

from __future__ import annotations

import struct
from typing import Any

from sidecar.layout.schema import Layout


class Fields:
    """Fields by dotted name, in the order in which they lie; arrays give one value per item, bytes give bytes."""

    def __init__(self, layout: Layout, *names: str) -> None:
        known = {leaf.name: leaf for leaf in layout.leaves()}
        form, end = "<", 0
        for name in names:
            leaf = known[name]
            assert leaf.offset >= end, f"{layout.NAME}.{name} lies before what is named before it"
            assert leaf.nested is None, f"{layout.NAME}.{name} is a layout: name its fields"
            form += "x" * (leaf.offset - end)
            form += f"{leaf.count}{leaf.format[-1]}" if leaf.format else f"{leaf.size}s"
            end = leaf.offset + leaf.size
        self._struct = struct.Struct(form)

    def __call__(self, memory: memoryview | bytes, offset: int = 0) -> tuple[Any, ...]:
        """The values in the layout that begins at `offset`."""
        return self._struct.unpack_from(memory, offset)
