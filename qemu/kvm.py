"""What the host's /dev/kvm can do, asked through its ioctls.

That /dev/kvm opens says little. Inside some cloud machines it is a variant (PVM) for hosts without hardware
virtualisation: it offers neither svm nor vmx, interprets all ring-0 code (about 600 times slower than TCG), and kills
the machine at the first instruction its interpreter lacks, such as `int n`. So the CPUID that KVM would give its
guests is read too.

Ref: Linux Documentation/virt/kvm/api.rst, 4.1 KVM_GET_API_VERSION and 4.46 KVM_GET_SUPPORTED_CPUID;
AMD64 APM volume 3, appendix E, CPUID functions 1 and 8000_0001.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEVICE = Path("/dev/kvm")
API_VERSION = 12

_GET_API_VERSION = 0xAE00
_GET_SUPPORTED_CPUID = 0xC008AE05
_HEADER = struct.Struct("=II")  # entries, padding
_ENTRY = struct.Struct("=7I12x")  # function, index, flags, eax, ebx, ecx, edx

_X2APIC = (0x0000_0001, 1 << 21)  # CPUID function, bit of ecx
_VMX = (0x0000_0001, 1 << 5)
_SVM = (0x8000_0001, 1 << 2)


@dataclass(frozen=True, slots=True)
class Kvm:
    """The finding: whether a machine can run the sidecar under KVM, and the sentence that says why."""

    usable: bool
    reason: str


def examine_kvm(device: Path = DEVICE) -> Kvm:
    """Opens `device` and asks it; never raises."""
    try:
        file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Kvm(False, _why_not_open(device, error))
    try:
        version = fcntl.ioctl(file, _GET_API_VERSION, 0)
        if version != API_VERSION:
            return Kvm(False, f"{device} has API version {version}, expected {API_VERSION}")
        return judge(dict(_supported_cpuid(file)), device=device)
    except OSError as error:
        return Kvm(False, f"{device} opens, but does not answer as KVM does ({error.strerror})")
    finally:
        os.close(file)


def judge(ecx_of: dict[int, int], *, device: Path = DEVICE) -> Kvm:
    """The verdict on the CPUID that KVM offers to guests: ecx by function."""

    def offers(feature: tuple[int, int]) -> bool:
        function, bit = feature
        return bool(ecx_of.get(function, 0) & bit)

    if not offers(_SVM) and not offers(_VMX):
        return Kvm(
            False,
            f"{device} opens, but offers its guests neither svm nor vmx: "
            "either it interprets kernel code, or nested virtualisation is off",
        )
    if not offers(_X2APIC):
        return Kvm(False, f"{device} opens, but offers its guests no x2APIC")
    return Kvm(True, f"{device} offers x2APIC and {'svm' if offers(_SVM) else 'vmx'}")


def _why_not_open(device: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"there is no {device}"
        case errno.EACCES | errno.EPERM:
            return f"{device} exists, but this user may not open it"
        case _:
            return f"{device} does not open ({error.strerror})"


def _supported_cpuid(file: int) -> Iterator[tuple[int, int]]:
    """Function and ecx of every CPUID entry that KVM supports."""
    for room in (256, 1024, 4096):
        buffer = bytearray(_HEADER.size + room * _ENTRY.size)
        _HEADER.pack_into(buffer, 0, room, 0)
        try:
            fcntl.ioctl(file, _GET_SUPPORTED_CPUID, buffer, True)
        except OSError as error:
            if error.errno == errno.E2BIG:
                continue
            raise
        entries, _ = _HEADER.unpack_from(buffer)
        for number in range(entries):
            function, index, _, _, _, ecx, _ = _ENTRY.unpack_from(buffer, _HEADER.size + number * _ENTRY.size)
            if index == 0:
                yield function, ecx
        return
    raise OSError(errno.E2BIG, "more CPUID entries than expected")
