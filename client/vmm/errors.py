"""What only a VMM can run into."""

from __future__ import annotations

from sidecar.errors import UserError
from sidecar.protocol.errors import DriverError


class VmError(DriverError):
    """The driver or the sidecar refused what a machine needs; the sentence says what."""


class BadImage(UserError):
    """A file that cannot be loaded into a guest."""


class Undecodable(Exception):
    """An instruction that reached a device's memory, and that the emulator does not know."""
