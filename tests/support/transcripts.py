"""What vp_run.py and kvm_run.c have printed, as records of registers by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PREFIXES = ("HvX64Register", "HvRegister")
SEGMENT, TABLE = ("base", "limit", "selector", "attributes"), ("base", "limit")
XSAVE_BYTES = 832
X87, SSE, AVX = 1, 2, 4
HEADER, YMM = 512, 576
CONTROL = {"fcw": (0, 2), "fsw": (2, 2), "ftw": (4, 1), "fop": (6, 2), "fip": (8, 8), "fdp": (16, 8)}
INITIAL_X87 = {"fcw": 0x37F} | dict.fromkeys(("fsw", "ftw", "fop", "fip", "fdp", *(f"st{n}" for n in range(8))), 0)
"""Ref: SDM vol. 1, table 13-1 and 10.5.1 (the image's legacy part)."""

Access = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Record:
    """An exit, what it accessed, and all registers after its instruction; `at`: where it began, if that was told."""

    exit: str
    accesses: tuple[Access, ...]
    registers: Mapping[str, int]
    at: int | None = None


def parse(text: str) -> dict[str, list[Record]]:
    """Guest to its records."""
    found: dict[str, list[Record]] = {}
    records: list[Record] = []
    for line in text.splitlines():
        values = json.loads(line)
        if "guest" in values:
            name = values["guest"].rpartition("/")[2].partition(".")[0]
            records = found.setdefault(name, [])
        else:
            records.append(record(values))
    return found


def record(values: dict[str, Any]) -> Record:
    accesses = tuple((what, address, size, value) for what, address, size, value in values.pop("accesses"))
    exit, at = values.pop("exit"), values.pop("at", None)
    registers = xsave(bytes.fromhex(values.pop("xsave")))
    for name, value in values.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        registers |= dict(parts(name.lower(), value))
    return Record(exit, accesses, registers, at)


def parts(name: str, value: int | list[int]) -> Iterable[tuple[str, int]]:
    """cs.base and so on of a segment or table."""
    if isinstance(value, int):
        return [(name, value)]
    fields = SEGMENT if len(value) == len(SEGMENT) else TABLE
    return [(f"{name}.{field}", number) for field, number in zip(fields, value, strict=True)]


def xsave(image: bytes) -> dict[str, int]:
    """Registers of an XSAVE image in the standard format; a component that its header does not have is initial."""
    image = image.ljust(XSAVE_BYTES, b"\0")

    def number(at: int, size: int) -> int:
        return int.from_bytes(image[at : at + size], "little")

    present = number(HEADER, 8)
    found = {name: number(at, size) for name, (at, size) in CONTROL.items()}
    found |= {f"st{n}": number(32 + 16 * n, 10) for n in range(8)}
    if not present & X87:
        found = dict(INITIAL_X87)
    found["mxcsr"] = number(24, 4)
    found |= {f"xmm{n}": number(160 + 16 * n, 16) if present & SSE else 0 for n in range(16)}
    return found | {f"ymm{n}": number(YMM + 16 * n, 16) if present & AVX else 0 for n in range(16)}
