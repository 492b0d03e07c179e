"""From the anchor to every page of every CPU, and a sentence for each way in which that fails."""

import re

import pytest

from sidecar.layout import PAGE_SIZE, CpuPolicy, CpuStatus, PrivatePage, SharedPage, TrampolinePage, abi_hash
from sidecar.layout.acpi import AcpiHeader, Sdcr
from sidecar.protocol.discovery import AbiMismatch, BadTable, DiscoveryError, NoAnchor, discover, find_anchor
from tests.support import synthetic
from tests.support.synthetic import NODE_PAS, SDCR_PA, TRAMPOLINE_PA, Synthetic, machine


def test_everything_is_found() -> None:
    found = discover(machine())
    assert (found.trampoline_pa, found.sdcr_pa) == (TRAMPOLINE_PA, SDCR_PA)
    assert (found.image_pa, found.image_bytes) == (synthetic.IMAGE_PA, synthetic.IMAGE_BYTES)
    assert [(node.number, node.control_pa, node.base_cpu, node.cpu_count) for node in found.nodes] == [
        (0, NODE_PAS[0], 0, 3),
        (1, NODE_PAS[1], 3, 2),
    ]
    assert [(cpu.linux_number, cpu.apic_id, cpu.node, cpu.index) for cpu in found.cpus] == [
        (0, 0, 0, 0), (1, 2, 0, 1), (2, 4, 0, 2), (3, 6, 1, 0), (4, 8, 1, 1), (5, 10, None, None),
    ]
    assert [cpu.linux_number for cpu in found.sidecar_cpus] == [1, 2, 4]


def test_addresses_of_pages() -> None:
    found = discover(machine())
    cpu = found.cpu(4)
    base = NODE_PAS[1]
    assert found.shared_page_pa(cpu, SharedPage.COMMAND) == base + 3 * PAGE_SIZE
    assert found.shared_page_pa(cpu, SharedPage.REGISTER) == base + 4 * PAGE_SIZE
    assert found.private_page_pa(cpu, PrivatePage.PML4) == base + 15 * PAGE_SIZE
    assert found.private_page_pa(cpu, PrivatePage.LOG) == base + 24 * PAGE_SIZE


def test_status_of_cpus() -> None:
    memory = machine()
    found = discover(memory)
    assert [found.status(memory, cpu) for cpu in found.cpus] == [
        CpuStatus.REMOVED, CpuStatus.IDLE, CpuStatus.RUN, CpuStatus.REMOVED, CpuStatus.IDLE, None,
    ]
    memory.data[NODE_PAS[0] + 0x40 + 1] = 0x77
    assert found.status(memory, found.cpu(1)) == 0x77


def test_microseconds_since_the_first_init() -> None:
    found = discover(machine())
    assert found.microseconds(found.all_idle_tsc) == 4006.0
    assert found.microseconds(found.sidecar_entry_tsc) == -1000.0


def test_an_unknown_policy_is_kept_as_a_number() -> None:
    memory = machine()
    cpus = b"".join(synthetic.cpu(n, **({"policy": 9} if n == 2 else {})) for n in range(6))
    memory.write(SDCR_PA, synthetic.sdcr(cpus=cpus))
    found = discover(memory)
    assert [cpu.policy for cpu in found.cpus][1:3] == [CpuPolicy.SIDECAR, 9]
    assert [cpu.linux_number for cpu in found.sidecar_cpus] == [1, 4]


@pytest.mark.parametrize("number", [-1, 6])
def test_a_cpu_that_does_not_exist(number: int) -> None:
    with pytest.raises(DiscoveryError, match=rf"^there is no CPU {number}: the machine has CPUs 0 to 5$"):
        discover(machine()).cpu(number)


def test_a_cpu_without_a_node_has_no_pages() -> None:
    found = discover(machine())
    with pytest.raises(DiscoveryError, match=r"^CPU 5 belongs to no sidecar node: it has no pages$"):
        found.private_page_pa(found.cpu(5), PrivatePage.LOG)


def test_no_anchor_says_what_was_scanned_and_what_to_do() -> None:
    with pytest.raises(NoAnchor, match=r"no page of 0x0 to 0xa0000 carries .*; the machine must have booted"):
        find_anchor(Synthetic())


def test_too_little_memory_to_scan() -> None:
    with pytest.raises(NoAnchor, match=r"0x0 to 0xa0000 cannot be scanned: 0x0 is not in this memory$"):
        find_anchor(Synthetic(bytearray(0x1000)))


def test_the_anchor_must_be_page_aligned() -> None:
    memory = Synthetic()
    memory.write(0x8010, machine().read(TRAMPOLINE_PA, PAGE_SIZE))
    with pytest.raises(NoAnchor):
        find_anchor(memory)


@pytest.mark.parametrize(("offset", "size"), [(TrampolinePage.abi_version, 4), (TrampolinePage.abi_hash, 8)])
def test_another_abi_names_both_hashes(offset: int, size: int) -> None:
    memory = machine()
    memory.data[TRAMPOLINE_PA + offset] ^= 0xFF
    got = int.from_bytes(memory.read(TRAMPOLINE_PA + TrampolinePage.abi_hash, 8), "little")
    with pytest.raises(AbiMismatch, match=f"{got:#018x}.*{abi_hash():#018x}: use the tools it was built with$"):
        discover(memory)


def test_another_abi_in_the_table() -> None:
    memory = machine()
    memory.write(SDCR_PA, synthetic.sdcr(abi_hash=1))
    with pytest.raises(AbiMismatch, match=r"^the SDCR table at 0x120040 has ABI version 1, hash 0x0000000000000001; "):
        discover(memory)


BAD_TABLES: dict[str, tuple[bytes, str]] = {
    "signature": (b"XXXX" + synthetic.sdcr()[4:], "expected signature b'SDCR', got b'XXXX'"),
    "checksum": (synthetic.sdcr()[:-1] + b"\x55", "expected bytes that sum to 0, got checksum remainder 0x"),
    "short": (
        synthetic.page(AcpiHeader, signature=b"SDCR", length=0x40),
        "is truncated: expected 0x90 bytes or more, got 0x40",
    ),
    "huge": (
        synthetic.page(AcpiHeader, signature=b"SDCR", length=0x7FFFFFFF),
        "expected at most 0x100000 bytes, got 0x7fffffff",
    ),
    "nodes outside": (
        synthetic.sdcr(node_count=7),
        "is truncated: its 7 node entries at 0x90 to 0x1e0 are not inside 0x90 to 0x150",
    ),
    "CPUs outside": (synthetic.sdcr(cpu_offset=0x20), "is truncated: its 6 CPU entries at 0x20 to 0x80 are not inside"),
    "CPU number": (
        synthetic.sdcr(cpus=synthetic.cpu(0) + synthetic.cpu(2)),
        "CPU entry 1: expected linux_number 1, got 2",
    ),
    "unknown node": (
        synthetic.sdcr(cpus=synthetic.cpu(0, node=2)),
        "CPU 0 is of node 2, expected less than 2",
    ),
    "wrong node": (
        synthetic.sdcr(cpus=synthetic.cpu(0, node=1)),
        "CPU 0 is of node 1, whose CPUs are 3 to 4",
    ),
    "node without CPUs": (
        synthetic.sdcr(nodes=synthetic.node(0, cpu_count=0)),
        "node 0 has 0 CPUs, expected 1 to 4032",
    ),
    "node beyond the map": (
        synthetic.sdcr(cpus=synthetic.cpu(0)),
        "node 0 has CPUs 0 to 2, expected at most 0",
    ),
    "moved pages": (
        synthetic.sdcr(nodes=synthetic.node(0, private_pa=0x1000)),
        "node 0, private_pa: expected 0x207000, got 0x1000",
    ),
    "unaligned node": (
        synthetic.sdcr(nodes=synthetic.node(0, control_pa=0x200010)),
        "node 0, control_pa: expected 0x200000, got 0x200010",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused_with_a_sentence(case: str) -> None:
    table, message = BAD_TABLES[case]
    memory = machine()
    memory.write(SDCR_PA, table)
    with pytest.raises(BadTable, match=rf"^the SDCR table at 0x120040:? .*{re.escape(message)}"):
        discover(memory)


def test_a_table_where_no_memory_is() -> None:
    memory = machine()
    memory.write_u64(TRAMPOLINE_PA + TrampolinePage.sdcr_pa, 1 << 40)
    with pytest.raises(BadTable, match=r"^the SDCR table at 0x10000000000 cannot be read: "):
        discover(memory)
    memory.write_u64(TRAMPOLINE_PA + TrampolinePage.sdcr_pa, synthetic.SIZE - Sdcr.SIZE)
    memory.write(synthetic.SIZE - Sdcr.SIZE, synthetic.sdcr()[: Sdcr.SIZE])
    with pytest.raises(BadTable, match=r"cannot be read: "):
        discover(memory)
