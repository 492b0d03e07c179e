"""What makes the shim leave the sidecar out before the machine is divided: each reason by itself, and none of them."""

import pytest

from sidecar.layout.x86 import Cpuid
from sidecar.shim.options import Option
from tests.support.emulator import Emulator
from tests.unit.shim.helpers import changed, fallback, fresh, returned

X2APIC, NX = 1 << Cpuid.ECX_X2APIC_BIT, 1 << Cpuid.EXT_EDX_NX_BIT
HIGHEST_LEAF = 0


def able() -> Emulator:
    """A machine and a bundle that can have the sidecar."""
    shim = fresh()
    shim.cpuid |= {
        HIGHEST_LEAF: (Cpuid.TOPOLOGY, 0, 0, 0),
        Cpuid.FEATURES: (0, 0, X2APIC, 0),
        Cpuid.EXTENDED_FEATURES: (0, 0, 0, NX),
    }
    shim.write("sidecar_part", 0x1000)
    return shim


def test_nothing_speaks_against_it() -> None:
    shim = able()
    returned(shim, shim.call("decide"))
    assert changed(shim) == {"sidecar_part"}
    assert shim.console == ""


def test_it_is_switched_off() -> None:
    shim = able()
    shim.write("options", Option.OFF | Option.LOG, size=4)
    assert fallback(shim, shim.call("decide")) == "sidecar=off on the command line"


def test_it_is_not_in_the_bundle() -> None:
    shim = able()
    shim.write("sidecar_part", 0)
    assert fallback(shim, shim.call("decide")) == "the bundle carries no sidecar image"


@pytest.mark.parametrize(
    ("leaf", "answer", "reason"),
    [
        (Cpuid.FEATURES, (0, 0, ~X2APIC & 0xFFFFFFFF, 0), "the CPUs have no x2APIC"),
        (HIGHEST_LEAF, (Cpuid.TOPOLOGY - 1, 0, 0, 0), "the CPUs do not tell their x2APIC id (CPUID leaf 0xB)"),
        (Cpuid.EXTENDED_FEATURES, (0, 0, 0, ~NX & 0xFFFFFFFF), "the CPUs have no no-execute pages"),
    ],
)
def test_the_cpus_lack_something(leaf: int, answer: tuple[int, int, int, int], reason: str) -> None:
    shim = able()
    shim.cpuid[leaf] = answer
    assert fallback(shim, shim.call("decide")) == reason
