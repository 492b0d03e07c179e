"""An ELF file as GNU readelf reads it: a judge for what the kernel does with its own headers."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SEGMENT = re.compile(r"^ +(\w+) +0x\w+ 0x(\w+) 0x\w+ 0x\w+ 0x(\w+) ([R ][W ][E ]) 0x", re.MULTILINE)
_SECTION = re.compile(r"^ +\[ *\d+\] (\S+) +\w+ +([0-9a-f]{16}) [0-9a-f]+ ([0-9a-f]+) ", re.MULTILINE)
PAGE = 0x1000


@dataclass(frozen=True, slots=True)
class Rights:
    """What may be done with a page."""

    writable: bool
    executable: bool


def page_rights(elf: Path) -> dict[int, Rights]:
    """Rights by the address of each page that the program headers ask for; read-only what PT_GNU_RELRO covers."""
    loads: dict[int, Rights] = {}
    finished: dict[int, Rights] = {}
    for kind, start, size, flags in _SEGMENT.findall(_readelf("-lW", elf)):
        pages = range(int(start, 16) & -PAGE, int(start, 16) + int(size, 16), PAGE)
        if kind == "LOAD":
            loads |= dict.fromkeys(pages, Rights("W" in flags, "E" in flags))
        elif kind == "GNU_RELRO":
            finished |= dict.fromkeys(pages, Rights(False, False))
    return loads | finished


def section(elf: Path, name: str) -> range:
    """The addresses of a section."""
    for found, start, size in _SECTION.findall(_readelf("-SW", elf)):
        if found == name:
            return range(int(start, 16), int(start, 16) + int(size, 16))
    raise LookupError(f"readelf shows no section {name} in {elf}")


def _readelf(option: str, elf: Path) -> str:
    done = subprocess.run(["readelf", option, elf], capture_output=True, text=True, check=True)
    return done.stdout
