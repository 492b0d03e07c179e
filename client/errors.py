"""What only a client in the guest can run into; the errors of commands and CPUs are those of `protocol.errors`."""

from __future__ import annotations

from sidecar.errors import UserError
from sidecar.protocol.errors import DriverError


class NoSidecar(UserError):
    """This Linux was not booted beside a sidecar."""


class NoDriver(UserError):
    """There is no way to the CPUs: no driver, or not what the way without one needs; the sentence has the remedy."""


class AlreadyAttached(UserError):
    """Somebody else has the machine: the driver, or another client without a driver."""


class DriverAppeared(DriverError):
    """The driver was loaded while a client without one was commanding: the client must end."""


class LinuxRefused(DriverError):
    """Linux did not take a CPU, or did not let it go."""
