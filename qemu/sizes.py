"""Memory sizes as people write them: "512M", "2G"."""

import re

from sidecar.errors import UserError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}


class BadSize(UserError):
    """A text that is no memory size."""


def parse_size(text: str) -> int:
    """Bytes of a size such as "4096", "512M", "2G", "1.5G" or "2GiB"; units are powers of 1024. Raises BadSize."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BadSize(f"'{text}' is not a memory size; write a number with K, M or G, such as 512M or 2G")
    number, unit = match.groups()
    size = float(number) * _UNITS[unit.upper()]
    if size != int(size) or size == 0:
        raise BadSize(f"'{text}' is not a whole number of bytes above zero")
    return int(size)


def format_size(size: int) -> str:
    """The shortest exact spelling: 536870912 is "512M"."""
    for unit in "TGMK":
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)
