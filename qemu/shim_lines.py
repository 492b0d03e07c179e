"""What the shim says on the console: why it does without the sidecar, what it noted, and its last sentence.

Ref: shim/console.py, which prints these lines.
"""

import re

_FALL_BACK = re.compile(r"^shim: not using the sidecar: (.+?)\s*$", re.MULTILINE)
_NOTE = re.compile(r"^shim: note: (.+?)\s*$", re.MULTILINE)
_FATAL = re.compile(r"^shim: fatal: .+?$", re.MULTILINE)


def fall_back_reason(console: str) -> str | None:
    """Why the shim did without the sidecar; None if it has not said so."""
    match = _FALL_BACK.search(console)
    return match.group(1) if match else None


def notes(console: str) -> list[str]:
    """What the shim noted for its user though the boot went on."""
    return _NOTE.findall(console)


def fatal_line(console: str) -> str | None:
    """The whole line with which the shim ended the machine; None if there is none."""
    match = _FATAL.search(console)
    return match.group() if match else None
