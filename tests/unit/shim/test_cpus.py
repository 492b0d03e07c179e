"""The CPUs and their NUMA nodes, read from MADT and SRAT: against a reading in Python, also of broken entries."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.layout import MAX_CPUS, MAX_NUMA_NODES, CpuMapEntry, CpuPolicy
from sidecar.layout.acpi import MADT_ENTRIES_OFFSET, SRAT_ENTRIES_OFFSET
from sidecar.layout.params import NO_NODE
from sidecar.layout.x86 import Cpuid
from sidecar.shim.memory import MEMORY_AFFINITIES, Range
from sidecar.shim.options import Option
from tests.support.emulator import Emulator
from tests.unit.shim.acpi_tables import FIRST, madt, srat, table, write_tables
from tests.unit.shim.helpers import changed, fallback, fresh, notes, returned

BSP = 4


def machine(*tables: bytes, wide: bool = False, bsp: int = BSP) -> Emulator:
    """The shim on a CPU of that APIC id, with these tables found."""
    shim = fresh()
    shim.cpuid[Cpuid.TOPOLOGY] = (0, 0, 0, bsp)
    write_tables(shim, tables, wide=wide)
    return shim


def cpus(shim: Emulator) -> list[tuple[int, int]]:
    """(APIC id, NUMA node) of each CPU; all are Linux's so far."""
    found = []
    for number in range(shim.number("cpu_count", 4)):
        entry = CpuMapEntry.parse(shim.read(shim.at("cpu_map") + number * CpuMapEntry.SIZE, CpuMapEntry.SIZE))
        assert (entry.linux_number, entry.node, int(entry.policy)) == (number, NO_NODE, CpuPolicy.LINUX)
        found.append((entry.apic_id, entry.numa_node))
    return found


def local_apic(apic_id: int, flags: int = 1) -> bytes:
    return struct.pack("<BBBBI", 0, 8, 0, apic_id, flags)


def io_apic(address: int, base: int = 0) -> bytes:
    return struct.pack("<BBBBII", 1, 12, 0, 0, address, base)


def local_x2apic(apic_id: int, flags: int = 1) -> bytes:
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, flags, 0)


# --- MADT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [False, True], ids=["RSDT", "XSDT"])
def test_the_boot_cpu_comes_first_then_the_enabled_ones_in_order(wide: bool) -> None:
    others = [local_apic(1, flags=0), local_apic(0xFF)]
    entries = [local_apic(7), local_apic(BSP), *others, local_x2apic(300), local_apic(2)]
    shim = machine(madt([io_apic(0xFEC0_0000), io_apic(0xFEC1_0000, base=24), *entries]), wide=wide)
    returned(shim, shim.call("list_cpus"))
    assert [apic_id for apic_id, _ in cpus(shim)] == [BSP, 7, 300, 2]
    assert shim.number("io_apic_pa") == 0xFEC0_0000


def test_a_phantom_is_the_last() -> None:
    shim = machine(madt([local_apic(5)]))
    shim.write("options", Option.PHANTOM, size=4)
    shim.write("phantom_apic_id", 77, size=4)
    returned(shim, shim.call("list_cpus"))
    assert [apic_id for apic_id, _ in cpus(shim)] == [BSP, 5, 77]


def test_without_a_madt_the_sidecar_is_not_used() -> None:
    shim = machine(srat([]))
    assert fallback(shim, shim.call("list_cpus")) == "ACPI has no MADT to list the CPUs"


def test_a_madt_with_a_wrong_checksum_is_named_and_passed_over() -> None:
    good = madt([local_apic(1)])
    shim = machine(table(b"APIC", good[36:], checksum=good[9] ^ 1), good)
    returned(shim, shim.call("list_cpus"))
    assert notes(shim) == [f"ACPI: the table at {FIRST:#x} has a wrong checksum and is ignored"]
    assert len(cpus(shim)) == 2


def test_more_cpus_than_the_map_holds_are_left_out() -> None:
    shim = machine(madt(local_x2apic(1000 + number) for number in range(500)))
    for _ in range(5):
        returned(shim, shim.call("list_cpus"))
    assert shim.number("cpu_count", 4) == MAX_CPUS
    assert changed(shim) <= {
        "lasting_tables", "cpu_map", "cpu_count", "bsp_apic_id", "rsdp_pa", "acpi_root", "acpi_pointer_bytes",
        "acpi_pointer_count",
    }  # fmt: skip


def entries_of(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """(type, bytes from the entry on) for each entry of a table, until one leads nowhere."""
    at = start
    while at + 2 <= len(data):
        if data[at + 1] < 2:
            return
        yield data[at], data[at:].ljust(64, b"\0")
        at += data[at + 1]


def listed(data: bytes) -> list[int]:
    """APIC ids as the MADT gives them."""
    found = [BSP]
    for kind, entry in entries_of(data, MADT_ENTRIES_OFFSET):
        if kind == 0:
            apic_id, flags = entry[3], entry[4]
        elif kind == 9:
            apic_id, flags = struct.unpack_from("<IB", entry, 4)
        else:
            continue
        if flags & 1 and apic_id != BSP and not (kind == 0 and apic_id == 0xFF):
            found.append(apic_id)
    return found


RANDOM_ENTRY = st.one_of(
    st.builds(local_apic, st.integers(0, 255), st.integers(0, 3)),
    st.builds(local_x2apic, st.integers(0, 1 << 31), st.integers(0, 3)),
    st.builds(io_apic, st.integers(0, (1 << 32) - 1), st.sampled_from([0, 24])),
    st.binary(max_size=24),
)


@given(st.lists(RANDOM_ENTRY, max_size=20))
def test_any_madt_is_read_as_in_python(entries: list[bytes]) -> None:
    data = madt(entries)
    shim = machine(data)
    returned(shim, shim.call("list_cpus"))
    assert [apic_id for apic_id, _ in cpus(shim)] == listed(data)


# --- SRAT ------------------------------------------------------------------------------------------------------------


def cpu_affinity(apic_id: int, domain: int, flags: int = 1) -> bytes:
    return struct.pack("<BBBBIB3sI", 0, 16, domain & 0xFF, apic_id, flags, 0, (domain >> 8).to_bytes(3, "little"), 0)


def x2apic_affinity(apic_id: int, domain: int, flags: int = 1) -> bytes:
    return struct.pack("<BBHIIIII", 2, 24, 0, domain, apic_id, flags, 0, 0)


def memory_affinity(base: int, length: int, domain: int, flags: int = 1) -> bytes:
    return struct.pack("<BBIHQQIIQ", 1, 40, domain, 0, base, length, 0, flags, 0)


@dataclass
class Affinity:
    """What an SRAT says; `refused` is the first domain that is too large."""

    numa: dict[int, int] = field(default_factory=dict)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    refused: int | None = None

    def read(self, data: bytes) -> None:
        for kind, entry in entries_of(data, SRAT_ENTRIES_OFFSET):
            if kind not in (0, 1, 2) or not entry[{0: 4, 1: 28, 2: 12}[kind]] & 1:
                continue
            domain = domain_of(kind, entry)
            if domain >= MAX_NUMA_NODES:
                self.refused = domain
                return
            if kind == 1:
                base, length = struct.unpack_from("<QQ", entry, 8)
                self.memory.append((base, (base + length) % (1 << 64), domain))
            else:
                self.numa[entry[3] if kind == 0 else int.from_bytes(entry[8:12], "little")] = domain


def domain_of(kind: int, entry: bytes) -> int:
    """The proximity domain of an affinity structure."""
    if kind == 0:
        return entry[2] | int.from_bytes(entry[9:12], "little") << 8
    return int.from_bytes(entry[2:6] if kind == 1 else entry[4:8], "little")


def affinities(shim: Emulator) -> list[tuple[int, ...]]:
    at = shim.at("memory_affinity")
    starts = range(at, at + shim.number("memory_affinity_count", 4) * Range.SIZE, Range.SIZE)
    return [tuple(shim.number(start + field) for field in (Range.base, Range.end, Range.numa)) for start in starts]


EVERYWHERE = [(0, (1 << 64) - 1, 0)]
SOME_CPUS = [local_apic(apic_id) for apic_id in range(8)] + [local_x2apic(0x12345)]


def numa_of(*tables: bytes) -> Emulator:
    shim = machine(madt(SOME_CPUS), *tables)
    returned(shim, shim.call("list_cpus"))
    return shim


def test_without_an_srat_all_is_node_0() -> None:
    shim = numa_of()
    returned(shim, shim.call("assign_numa"))
    assert {numa for _, numa in cpus(shim)} == {0}
    assert affinities(shim) == EVERYWHERE


def test_cpus_and_memory_get_their_nodes() -> None:
    ours = [cpu_affinity(1, 3), cpu_affinity(2, 5, flags=0), x2apic_affinity(0x12345, 63)]
    memory = [memory_affinity(0, 0x1000_0000, 0), memory_affinity(1 << 40, 1 << 30, 3)]
    shim = numa_of(srat([*ours, *memory, memory_affinity(1 << 41, 1 << 30, 3, flags=2)]))
    returned(shim, shim.call("assign_numa"))
    assert {apic_id: numa for apic_id, numa in cpus(shim) if numa} == {1: 3, 0x12345: 63}
    assert affinities(shim) == [(0, 0x1000_0000, 0), (1 << 40, (1 << 40) + (1 << 30), 3)]


def test_no_more_memory_is_listed_than_there_is_room_for() -> None:
    entries = [memory_affinity(number << 30, 1 << 30, 0) for number in range(MEMORY_AFFINITIES + 3)]
    shim = numa_of(srat(entries))
    returned(shim, shim.call("assign_numa"))
    assert len(affinities(shim)) == MEMORY_AFFINITIES


@pytest.mark.parametrize("entry", [cpu_affinity(1, 64), x2apic_affinity(1, 1 << 31), memory_affinity(0, 4096, 99)])
def test_a_node_beyond_the_limit_is_a_reason(entry: bytes) -> None:
    affinity = Affinity()
    affinity.read(srat([entry]))
    shim = numa_of(srat([entry]))
    assert fallback(shim, shim.call("assign_numa")) == f"NUMA node {affinity.refused} is beyond 63"


DOMAIN = st.integers(0, 63) | st.integers(60, 70) | st.integers(0, (1 << 32) - 1)
RANDOM_AFFINITY = st.one_of(
    st.builds(cpu_affinity, st.integers(0, 9), DOMAIN, st.integers(0, 3)),
    st.builds(x2apic_affinity, st.integers(0, 9) | st.just(0x12345), DOMAIN, st.integers(0, 3)),
    st.builds(memory_affinity, st.integers(0, 1 << 40), st.integers(0, 1 << 40), DOMAIN, st.integers(0, 3)),
    st.binary(max_size=44),
)


@given(st.lists(RANDOM_AFFINITY, max_size=12))
def test_any_srat_is_read_as_in_python(entries: list[bytes]) -> None:
    data = srat(entries)
    expected = Affinity()
    expected.read(data)
    shim = numa_of(data)
    outcome = shim.call("assign_numa")
    if expected.refused is not None:
        assert fallback(shim, outcome) == f"NUMA node {expected.refused} is beyond 63"
        return
    returned(shim, outcome)
    assert {apic_id: numa for apic_id, numa in cpus(shim) if numa} == {
        apic_id: expected.numa[apic_id] for apic_id, _ in cpus(shim) if expected.numa.get(apic_id)
    }
    assert affinities(shim) == (expected.memory or EVERYWHERE)
