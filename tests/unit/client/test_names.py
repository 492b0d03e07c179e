"""How CPUs are named, and what a name that fits none is answered."""

import pytest

from sidecar.client.names import find, ranges
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import NoSuchCpu

CPUS = [CpuNumbers(linux, 0x10 + 2 * linux, linux // 4, linux % 4) for linux in range(7)]


@pytest.mark.parametrize(
    ("name", "linux"),
    [(3, 3), ("3", 3), ("0x3", 3), ("0", 0), ("apic:0x16", 3), ("apic:22", 3), ("1:2", 6), ("0:0", 0), ("0x1:0x2", 6)],
)
def test_a_name_finds_its_cpu(name: str | int, linux: int) -> None:
    assert find(name, CPUS).linux == linux


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("7", r"^CPU 7 is in no sidecar node; there are CPUs 0-6$"),
        ("apic:3", r"^no CPU of a sidecar node has APIC id 0x3; there are 0x10, 0x12, .*, 0x1c$"),
        ("2:0", r"^there is no sidecar node 2; there are nodes 0-1$"),
        ("1:3", r"^node 1 has no CPU with index 3; there are 0-2$"),
        ("cpu3", r"^'cpu3' names no CPU: write a Linux number such as 3, apic:ID, or node:index such as 0:2$"),
        ("-1", r"^'-1' names no CPU"),
        ("", r"^'' names no CPU"),
        ("0:", r"^'0:' names no CPU"),
        ("apic:", r"^'apic:' names no CPU"),
        ("\N{ARABIC-INDIC DIGIT THREE}", r"names no CPU"),
    ],
)
def test_a_name_that_fits_none_says_what_there_is(name: str, complaint: str) -> None:
    with pytest.raises(NoSuchCpu, match=complaint):
        find(name, CPUS)


def test_ranges() -> None:
    assert ranges([4, 0, 1, 2]) == "0-2, 4"
    assert ranges([]) == "none"
    assert ranges([10, 11], "{:#x}") == "0xa-0xb"
